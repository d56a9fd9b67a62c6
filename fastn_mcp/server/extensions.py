"""MCP extensions: approval requests in the chat, for hosts of MCP Apps (`io.modelcontextprotocol/ui`), and the skill.

The app shows the request of an `approval_required` result, until when it is open and what was decided, and opens the
approval page. It decides nothing: the server has no call that does, and no tool is for the app alone.

The skill (SEP-2640) says how to work with this server. The plugin for Claude Code carries the same text. It is in
`skills/list` only and not among the resources, so that clients that do not know the extension see nothing new.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from mcp import MCPError, types
from mcp.server import ServerRequestContext
from mcp.server.apps import APP_MIME_TYPE, client_supports_apps
from pydantic import JsonValue

from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.redaction import safe

APP_URI = "ui://fastn-mcp/approval"

TOOL_META = {"ui": {"resourceUri": APP_URI}}
"""`_meta` of each tool that may need an approval, in sessions whose client shows apps."""

RESULT_META = "fastn-mcp/approval"
"""Key in the `_meta` of an `approval_required` result: what the app shows and the model does not need."""

_STATIC = files("fastn_mcp") / "channels" / "page" / "static"


def can_show(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client shows apps, or cannot say so: over HTTP up to 2025-11-25 requests name no capabilities."""
    return ctx.session.client_capabilities is None or client_supports_apps(ctx)


def read_app(ctx: ServerRequestContext[Any], uri: str) -> types.ReadResourceResult | None:
    """Return the app, or None if `uri` is another resource or the client shows no apps."""
    if uri != APP_URI or not can_show(ctx):
        return None
    # It loads nothing, so that the host's default policy fits; and draws its own border.
    meta = {"ui": {"prefersBorder": False}}
    app = types.TextResourceContents(uri=APP_URI, mime_type=APP_MIME_TYPE, text=_html(), _meta=meta)
    return types.ReadResourceResult(contents=[app])


@cache
def _html() -> str:
    """Return the document, with the style of the approval page in it."""
    document, style = ((_STATIC / name).read_text(encoding="utf-8") for name in ("approval_app.html", "page.css"))
    return document.replace("/* page.css */", style)


def result_meta(waiting: PendingApproval) -> dict[str, Any]:
    """Return the `_meta` of an `approval_required` result: the page's address, and the sentences one by one."""
    question = waiting.request.question
    sentences: JsonValue = {"says": question.says(), "calls": [call.says() for call in question.calls]}
    return {RESULT_META: {"page": waiting.page, **cast("dict[str, JsonValue]", safe(sentences))}}


SKILLS = "io.modelcontextprotocol/skills"
SKILL_URI = "skill://fastn/SKILL.md"

Entry = dict[str, JsonValue]


class GetSkillParams(types.RequestParams):
    uri: str


class SkillsResult(types.CacheableResult):
    """A result that changes with the version only, and is the same for everybody."""

    ttl_ms: int = 3_600_000
    cache_scope: Literal["private", "public"] = "public"


class ListSkillsResult(SkillsResult):
    skills: list[Entry]


class GetSkillResult(SkillsResult):
    skill: Entry


@cache
def _text() -> str:
    return (files("fastn_mcp") / "skill.md").read_text(encoding="utf-8")


@cache
def skill_entry() -> Entry:
    """Return the skill's entry: `uri`, `frontmatter` as in the file, and `resources` with digest and size in bytes."""
    _, front, _ = _text().split("---\n", 2)
    frontmatter: Entry = {}
    for line in front.splitlines():  # one line of plain text each; a test compares it with what YAML makes of it
        name, _, value = line.partition(": ")
        frontmatter[name] = value
    content = _text().encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {
        "uri": SKILL_URI,
        "frontmatter": frontmatter,
        "resources": [{"uri": SKILL_URI, "digest": digest, "size": len(content)}],
    }


def get_skill(params: GetSkillParams) -> GetSkillResult:
    """Return the entry of a skill. Raises `MCPError` for an unknown URI."""
    if params.uri != SKILL_URI:
        raise MCPError(types.INVALID_PARAMS, f"Unknown skill. This server has one: {SKILL_URI}")
    return GetSkillResult(skill=skill_entry())


def read_skill(uri: str) -> types.ReadResourceResult | None:
    """Return the file of the skill; None if `uri` is another resource."""
    if uri != SKILL_URI:
        return None
    text = types.TextResourceContents(uri=SKILL_URI, mime_type="text/markdown", text=_text())
    return types.ReadResourceResult(contents=[text])
