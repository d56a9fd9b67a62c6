"""A Fastn in this process, with data, for trying and testing without an account. Harsher than one hopes.

`Sandbox(now).answer(...)` is one request; `create_app(sandbox, control=False)` is the same as an ASGI application. What
the sandbox believes of Fastn is what this project believes: that it is content proves nothing about the real one.
"""

from fastn_mcp.sandbox.app import create_app
from fastn_mcp.sandbox.behaviour import Behaviour, Envelope, ErrorShape, Filtering, Paging, RetryAfter
from fastn_mcp.sandbox.fake import Sandbox
from fastn_mcp.sandbox.keys import KEY, LIVE_KEY, VIEWER_KEY
from fastn_mcp.sandbox.requests import Heard
from fastn_mcp.sandbox.size import Size

__all__ = [
    "KEY",
    "LIVE_KEY",
    "VIEWER_KEY",
    "Behaviour",
    "Envelope",
    "ErrorShape",
    "Filtering",
    "Heard",
    "Paging",
    "RetryAfter",
    "Sandbox",
    "Size",
    "create_app",
]
