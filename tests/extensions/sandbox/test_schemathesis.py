"""Schemathesis on the sandbox: valid and invalid requests of the OpenAPI document, for all operations.

Collected only where its plugin is loaded: the import takes half a second in each process.
"""

from typing import Any

import pytest
import schemathesis.openapi
from hypothesis import settings
from openapi_document import document
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from support.clock import Clock
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultySandbox
from support.sensible_calls import sensible

from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import LIVE_KEY

# Schemathesis binds the application to the schema, and the schema to the tests: they share one account, which is
# created again after each change.
SANDBOX = FaultySandbox(Clock().now)
CALLS = {call.tool_name(): call for call in sensible(Fastn(SANDBOX))}
HEADERS = {"x-fastn-api-key": LIVE_KEY}

# Errors that no schema can exclude: an invalid cron expression, or an unknown id.
BEYOND_A_SCHEMA: Any = [vars(checks)["positive_data_acceptance"]]


API: Any = schemathesis.openapi.from_dict(document("http://sandbox"), config=SchemathesisConfig(seed=1))
API.app = create_app(SANDBOX)


def answered(case: Any) -> int:
    """Return the status of the answer to `case`. Raises if one of schemathesis's checks fails."""
    before = SANDBOX.state.serial
    try:
        answer = case.call(headers=HEADERS)
        case.validate_response(answer, headers=HEADERS, excluded_checks=BEYOND_A_SCHEMA)
    finally:
        if SANDBOX.state.serial != before:
            SANDBOX.reset()
    return answer.status_code


@pytest.mark.long
@API.parametrize()
@settings(max_examples=20, derandomize=True, database=None)
def test_generated_requests_get_documented_answers(case: Any) -> None:
    answered(case)
