"""Schemathesis on the sandbox: whatever the OpenAPI document allows, and much that it does not, for all operations."""

from typing import Any

import pytest
import schemathesis.openapi
from asking import Clock, Fastn
from faulty_sandbox import FaultySandbox
from hypothesis import settings
from openapi_document import document
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from sensible_calls import sensible

from fastn_mcp.sandbox.app import create_app
from fastn_mcp.sandbox.auth import LIVE_KEY

# Schemathesis binds an application to its schema, and that to the tests: so one account for all, made anew whenever it
# changed.
SANDBOX = FaultySandbox(Clock())
CALLS = {call.tool_name(): call for call in sensible(Fastn(SANDBOX))}
HEADERS = {"x-fastn-api-key": LIVE_KEY}

# What no schema says: that this text is a cron, or that there is something by this id.
BEYOND_A_SCHEMA: Any = [vars(checks)["positive_data_acceptance"]]


API: Any = schemathesis.openapi.from_dict(document("http://sandbox"), config=SchemathesisConfig(seed=1))
API.app = create_app(SANDBOX)


def answered(case: Any) -> int:
    """The status that `case` is answered with. Raises where one of schemathesis's checks finds something."""
    before = SANDBOX.state.serial
    try:
        answer = case.call(headers=HEADERS)
        case.validate_response(answer, headers=HEADERS, excluded_checks=BEYOND_A_SCHEMA)
    finally:
        if SANDBOX.state.serial != before:
            SANDBOX.reset()
    return answer.status_code


def test_the_document_is_openapi() -> None:
    """The OpenAPI specification's own schema of 3.1."""
    API.validate()


@pytest.mark.long
@API.parametrize()
@settings(max_examples=20, derandomize=True, database=None)
def test_whatever_is_asked_is_answered_as_the_document_says(case: Any) -> None:
    """Issue 4: schemathesis against the sandbox's own OpenAPI document finds nothing."""
    answered(case)


@pytest.mark.parametrize("name", CALLS)
def test_what_works_is_answered_as_the_document_says(name: str) -> None:
    """Ours: with ids that exist and a body that makes sense, since what is generated seldom gets so far."""
    call = CALLS[name]
    request = call.request()
    case = API[call.route.path][call.route.method].Case(
        path_parameters={parameter: getattr(call, parameter) for parameter in call.route.parameters},
        query=request.query,
        headers=request.headers,
        media_type="application/json",
        **({} if request.body is None else {"body": request.body}),
    )

    assert answered(case) < 300
