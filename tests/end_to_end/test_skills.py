"""The Skills extension (SEP-2640): the list, the entry, and the file that they name. `make conformance` runs its
suite."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, Request, Result, TextResourceContents
from pydantic import ConfigDict
from support.server_process import Upstream, each_transport_and_era, environment, served

from fastn_mcp.server.extensions import SKILLS

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
URI = "skill://fastn/SKILL.md"


class AnyResult(Result):
    model_config = ConfigDict(extra="allow")


async def asked(client: Client, method: str, **params: Any) -> dict[str, Any]:
    request = Request[dict[str, Any], str](method=method, params=params)
    return (await client.session.send_request(request, AnyResult)).model_dump(by_alias=True)


@each_transport_and_era
async def test_skill_is_listed_and_read(upstream: Upstream, transport: str, era: str) -> None:
    async with served(environment(upstream), transport, era) as client:
        listed = await asked(client, "skills/list")
        (entry,) = listed["skills"]
        one = await asked(client, "skills/get", uri=URI)
        (content,) = (await client.read_resource(URI)).contents
        assert isinstance(content, TextResourceContents)
        assert (content.mime_type, str(content.uri)) == ("text/markdown", URI)
        file = content.text.encode()
        assert entry == {
            "uri": URI,
            "frontmatter": yaml.safe_load(content.text.split("---\n")[1]),
            "resources": [
                {"uri": URI, "digest": f"sha256:{hashlib.sha256(file).hexdigest()}", "size": len(file)},
            ],
        }
        assert one["skill"] == entry
        assert file == (ROOT / "plugins/fastn/skills/fastn/SKILL.md").read_bytes()
        for unknown in ({"uri": "skill://other/SKILL.md"}, {"uri": "skill://fastn"}, {"uri": ""}, {}):
            with pytest.raises(MCPError) as refused:
                await asked(client, "skills/get", **unknown)
            assert refused.value.error.code == INVALID_PARAMS
        with pytest.raises(MCPError, match="Unknown cursor"):
            await asked(client, "skills/list", cursor="2")
        with pytest.raises(MCPError, match="There is no such resource"):
            await client.read_resource("skill://fastn/other.md")
        # Clients that do not know the extension see nothing new.
        assert "skill://" not in str((await client.list_resources(), await client.list_resource_templates()))
        if era == "2026-07-28":
            assert (await asked(client, "server/discover"))["capabilities"]["extensions"][SKILLS] == {}
