"""The skill, served to clients of the Skills extension (SEP-2640): how to work with this server.

The plugin for Claude Code carries the same text. The skill is in `skills/list` only and not among the resources, so
that clients that do not know the extension see nothing new.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Literal

from mcp import MCPError, types
from pydantic import JsonValue

EXTENSION = "io.modelcontextprotocol/skills"
URI = "skill://fastn/SKILL.md"

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
def entry() -> Entry:
    """Return the skill's entry: `uri`, `frontmatter` as in the file, and `resources` with digest and size in bytes."""
    _, front, _ = _text().split("---\n", 2)
    frontmatter: Entry = {}
    for line in front.splitlines():  # one line of plain text each; a test compares it with what YAML makes of it
        name, _, value = line.partition(": ")
        frontmatter[name] = value
    content = _text().encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {
        "uri": URI,
        "frontmatter": frontmatter,
        "resources": [{"uri": URI, "digest": digest, "size": len(content)}],
    }


def get(params: GetSkillParams) -> GetSkillResult:
    """Return the entry of a skill. Raises `MCPError` for an unknown URI."""
    if params.uri != URI:
        raise MCPError(types.INVALID_PARAMS, f"There is no such skill. There is one: {URI}")
    return GetSkillResult(skill=entry())


def read(uri: str) -> types.ReadResourceResult | None:
    """Return the file of the skill; None if `uri` is another resource."""
    if uri != URI:
        return None
    text = types.TextResourceContents(uri=URI, mime_type="text/markdown", text=_text())
    return types.ReadResourceResult(contents=[text])
