"""What a user would write instead: FastMCP's bridge from an OpenAPI document. Environment: OPENAPI, BASE_URL, KEY."""

import json
import os
from pathlib import Path

import httpx2
from fastmcp import FastMCP

KEY = os.environ["KEY"]
TEST_MODE = {"X-fastn-Test-Mode": "true"} if KEY.startswith("fsk_test_") else {}

FastMCP.from_openapi(
    openapi_spec=json.loads(Path(os.environ["OPENAPI"]).read_text(encoding="utf-8")),
    client=httpx2.AsyncClient(
        base_url=os.environ["BASE_URL"], headers={"x-fastn-api-key": KEY} | TEST_MODE, timeout=30
    ),
    name="fastmcp",
).run(show_banner=False, log_level="WARNING")
