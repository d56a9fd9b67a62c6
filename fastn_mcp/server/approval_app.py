"""Approval requests in the chat, for hosts of MCP Apps (`io.modelcontextprotocol/ui`).

The app shows the request of an `approval_required` result, until when it is open and what was decided, and opens the
approval page. It decides nothing: the server has no call that does, and no tool is for the app alone.
"""

from functools import cache
from importlib.resources import files
from typing import Any, cast

from mcp.server import ServerRequestContext
from mcp.server.apps import APP_MIME_TYPE, client_supports_apps
from mcp.types import ReadResourceResult, TextResourceContents
from pydantic import JsonValue

from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.preview import ListPreview
from fastn_mcp.redaction import safe

URI = "ui://fastn-mcp/approval"

TOOL_META = {"ui": {"resourceUri": URI}}
"""`_meta` of each tool that may need an approval, in sessions whose client shows apps."""

RESULT_META = "fastn-mcp/approval"
"""Key in the `_meta` of an `approval_required` result: what the app shows and the model does not need."""

_STATIC = files("fastn_mcp") / "channels" / "page" / "static"


def can_show(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client shows apps, or cannot say so: over HTTP up to 2025-11-25 requests name no capabilities."""
    return ctx.session.client_capabilities is None or client_supports_apps(ctx)


def read(ctx: ServerRequestContext[Any], uri: str) -> ReadResourceResult | None:
    """Return the app, or None if `uri` is another resource or the client shows no apps."""
    if uri != URI or not can_show(ctx):
        return None
    # It loads nothing, so that the host's default policy fits; and draws its own border.
    app = TextResourceContents(uri=URI, mime_type=APP_MIME_TYPE, text=_html(), _meta={"ui": {"prefersBorder": False}})
    return ReadResourceResult(contents=[app])


@cache
def _html() -> str:
    """Return the document, with the style of the approval page in it."""
    document, style = ((_STATIC / name).read_text(encoding="utf-8") for name in ("approval_app.html", "page.css"))
    return document.replace("/* page.css */", style)


def result_meta(waiting: PendingApproval) -> dict[str, Any]:
    """Return the `_meta` of an `approval_required` result: the page's address, and the sentences one by one."""
    preview = waiting.preview
    calls = [each.says for each in preview.of.values()] if isinstance(preview, ListPreview) else []
    sentences: JsonValue = {"says": preview.says.data(), "calls": [says.data() for says in calls]}
    return {RESULT_META: {"page": waiting.page, **cast("dict[str, JsonValue]", safe(sentences))}}
