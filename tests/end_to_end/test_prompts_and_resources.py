"""Prompts, resources, completion and the skill with the SDK's client, on each transport and protocol version."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp import Client, MCPError
from mcp.types import (
    INVALID_PARAMS,
    PromptReference,
    Request,
    ResourceTemplateReference,
    Result,
    TextContent,
    TextResourceContents,
)
from pydantic import ConfigDict
from support.server_process import Connect, Upstream, each_era, each_transport_and_era, environment, served

from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS
from fastn_mcp.server.extensions import SKILLS
from fastn_mcp.server.prompts import available

ONE_EACH = {
    "fastn://customers/{customer_id}": "acme",
    "fastn://connectors/{connector_id}": "slack",
    "fastn://workflows/{workflow_id}": "tiktok",
    "fastn://triggers/{trigger_id}": "hourly slack",
    "fastn://executions/{execution_id}": "sync-tiktok",
    "fastn://connections/{connection_id}": "",
    "fastn://users/{user_id}": "",
    "fastn://roles/{role_id}": "own",
    "fastn://api-keys/{api_key_id}": "",
    "fastn://secrets/{secret_id}": "",
}
"""Every template, and what a person might type to reach one of the kind."""


async def read(client: Client, uri: str) -> dict[str, Any]:
    (contents,) = (await client.read_resource(uri)).contents
    assert isinstance(contents, TextResourceContents)
    assert (contents.uri, contents.mime_type) == (uri, "application/json")
    return json.loads(contents.text)


@pytest.mark.parametrize("text", ["a" * 3_000, "fastn://customers/" + "a" * 3_000])
async def test_long_uri_is_refused_with_its_bound(upstream: Upstream, connect: Connect, text: str) -> None:
    async with connect("http", "2026-07-28") as client:
        with pytest.raises(
            MCPError, match=r"uri: 3,0\d\d characters; at most 2,000 are accepted\. Nothing was sent\."
        ) as caught:
            await client.read_resource(text)
        assert caught.value.error.code == INVALID_PARAMS
    assert upstream.requests() == []


@each_transport_and_era
async def test_long_text_to_complete_is_refused_with_its_bound(upstream: Upstream, client: Client) -> None:
    reference = ResourceTemplateReference(uri="fastn://customers/{customer_id}")
    with pytest.raises(MCPError, match=r"customer_id: 201 characters; at most 200 are accepted\. Nothing was sent\."):
        await client.complete(reference, {"name": "customer_id", "value": "a" * 201})
    assert upstream.requests() == []


async def proposed(client: Client, template: str, typed: str) -> list[str]:
    name = template.partition("{")[2].rstrip("}")
    result = await client.complete(ResourceTemplateReference(uri=template), {"name": name, "value": typed})
    return result.completion.values


@each_transport_and_era
async def test_templates_are_listed_and_read(upstream: Upstream, client: Client) -> None:
    """MCP: completion returns values for a template's variable. Content is marked as untrusted."""
    listed = (await client.list_resource_templates()).resource_templates
    assert {template.uri_template for template in listed} == ONE_EACH.keys()
    for template in listed:
        values = await proposed(client, template.uri_template, ONE_EACH[template.uri_template])
        assert values, template.uri_template
        (wanted, *_) = values
        content = await read(client, template.uri_template.partition("{")[0] + wanted.replace(":", "%3A"))
        assert content["untrusted"] is True
        assert str(content["data"]["id"]) == wanted
    assert not upstream.changes()


@each_transport_and_era
async def test_direct_resources_are_listed_and_read(client: Client) -> None:
    """MCP: direct resources are listed with name and type. The overview too if its tool is enabled."""
    listed = {resource.uri: resource for resource in (await client.list_resources()).resources}
    there = {"fastn://billing", "fastn://usage", "fastn://quotas"}
    assert listed.keys() == there | ({"fastn://overview"} if "get_overview" in TOOLS else set())
    for uri, resource in listed.items():
        assert resource.mime_type == "application/json"
        assert resource.annotations is not None
        assert resource.annotations.audience == ["assistant"]
        assert (await read(client, uri))["untrusted"] is True


@each_transport_and_era
async def test_ids_with_colons_are_completed_and_read(client: Client) -> None:
    template = "fastn://connections/{connection_id}"
    wanted = next(value for value in await proposed(client, template, "") if ":" in value)
    assert wanted in await proposed(client, template, wanted[:8])
    for written in (wanted, wanted.replace(":", "%3A")):
        assert (await read(client, f"fastn://connections/{written}"))["data"]["id"] == wanted


NOT_THERE = (
    "fastn://customers/nobody-of-this-id",
    "fastn://connections/none:of:these",
    "fastn://roles/none",
    "fastn://customers",
    "fastn://planets/mars",
    "https://example.com/",
)


@each_transport_and_era
async def test_missing_resource_has_an_error_code(era: str, upstream: Upstream, client: Client) -> None:
    """MCP up to 2025-11-25: -32002; since 2026-07-28 (SEP-2164): -32602; both with the URI in the data."""
    for uri in NOT_THERE:
        with pytest.raises(MCPError) as raised:
            await client.read_resource(uri)
        assert raised.value.error.code == (-32602 if era == "2026-07-28" else -32002), uri
        assert raised.value.error.data["uri"] == uri
        assert raised.value.error.message
    assert not upstream.changes()


@each_transport_and_era
async def test_invalid_id_in_a_uri_is_refused(upstream: Upstream, client: Client) -> None:
    """A URI cannot pass a value that an argument could not."""
    before = len(upstream.requests())
    for id_ in ("..%2Fapi-keys", "%2e%2e", "a%20b", "-x", "a%00"):
        for kind in ("customers", "connections"):
            with pytest.raises(MCPError, match="takes an id") as raised:
                await client.read_resource(f"fastn://{kind}/{id_}")
            assert raised.value.error.code == -32602
    assert len(upstream.requests()) == before


@each_transport_and_era
async def test_prompt_arguments_complete_to_ids(client: Client) -> None:
    """MCP: an unknown prompt, template or argument is -32602. Free text has no completion."""
    key = PromptReference(name="rotate_api_key")
    ids = await proposed(client, "fastn://api-keys/{api_key_id}", "")
    completion = (await client.complete(key, {"name": "key", "value": ""})).completion
    assert completion.values == ids
    assert (completion.total, completion.has_more) == (len(ids), False)
    for reference, argument in (
        (key, "keys"),
        (PromptReference(name="nothing"), "key"),
        (ResourceTemplateReference(uri="fastn://planets/{id}"), "id"),
    ):
        with pytest.raises(MCPError) as raised:
            await client.complete(reference, {"name": argument, "value": ""})
        assert raised.value.error.code == -32602


@each_transport_and_era
async def test_prompts_are_listed_and_rendered(client: Client) -> None:
    prompts = (await client.list_prompts()).prompts
    assert [prompt.name for prompt in prompts] == [recipe.name for recipe in available(ALL_TOOLS)]
    for prompt in prompts:
        arguments = {argument.name: "acme" for argument in prompt.arguments or []}
        (message,) = (await client.get_prompt(prompt.name, arguments)).messages
        assert message.role == "user"
        assert isinstance(message.content, TextContent)
        assert ('"acme"' in message.content.text) == bool(arguments)


@each_transport_and_era
async def test_unknown_prompt_or_argument_is_named(client: Client) -> None:
    """MCP: -32602 for an unknown prompt or a missing argument. It is named."""
    refused: tuple[tuple[str, dict[str, str], str], ...] = (
        ("rotate_api_key", {}, "key: is required"),
        ("rotate_api_key", {"key": "  "}, "key: is required"),
        ("rotate_api_key", {"key": "a", "kee": "b"}, "unknown argument 'kee' (did you mean 'key'?)"),
        ("rotate_key", {}, "did you mean 'rotate_api_key'?"),
    )
    for name, arguments, message in refused:
        with pytest.raises(MCPError) as raised:
            await client.get_prompt(name, arguments)
        assert raised.value.error.code == -32602
        assert message in raised.value.error.message


@each_era
async def test_settings_filter_prompts_and_resources_like_tools(era: str, connect: Connect) -> None:
    async with connect("stdio", era, flags=("--mode", "read-only")) as client:
        assert "rotate_api_key" not in [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert "access_review" in [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert len((await client.list_resource_templates()).resource_templates) == 10
        with pytest.raises(MCPError, match="disabled here"):
            await client.get_prompt("rotate_api_key", {"key": "x"})
    async with connect("stdio", era, flags=("--tools", "customers")) as client:
        assert (await client.list_prompts()).prompts == []
        assert (await client.list_resources()).resources == []
        (only,) = (await client.list_resource_templates()).resource_templates
        assert only.uri_template == "fastn://customers/{customer_id}"
        with pytest.raises(MCPError, match="Unknown resource"):
            await client.read_resource("fastn://billing")
        typed = {"name": "customer_id", "value": "acme"}
        customer = ResourceTemplateReference(uri="fastn://customers/{customer_id}")
        (wanted, *_) = (await client.complete(customer, typed)).completion.values
        assert (await client.read_resource(f"fastn://customers/{wanted}")).contents
        workflow = ResourceTemplateReference(uri="fastn://workflows/{workflow_id}")
        with pytest.raises(MCPError, match="Unknown resource template"):
            await client.complete(workflow, {"name": "workflow_id", "value": "acme"})


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
        with pytest.raises(MCPError, match="Unknown resource"):
            await client.read_resource("skill://fastn/other.md")
        # Clients that do not know the extension see nothing new.
        assert "skill://" not in str((await client.list_resources(), await client.list_resource_templates()))
        if era == "2026-07-28":
            assert (await asked(client, "server/discover"))["capabilities"]["extensions"][SKILLS] == {}
