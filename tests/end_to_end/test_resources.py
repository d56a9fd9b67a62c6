"""Resources and completion with the SDK's client, on both transports and in both protocol versions."""

import json
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import PromptReference, ResourceTemplateReference, TextResourceContents
from support.server_process import Upstream, each_transport_and_era

from fastn_mcp.procedures.catalog import TOOLS

pytestmark = each_transport_and_era

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


async def proposed(client: Client, template: str, typed: str) -> list[str]:
    name = template.partition("{")[2].rstrip("}")
    result = await client.complete(ResourceTemplateReference(uri=template), {"name": name, "value": typed})
    return result.completion.values


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


async def test_missing_resource_has_an_error_code(era: str, upstream: Upstream, client: Client) -> None:
    """MCP up to 2025-11-25: -32002; since 2026-07-28 (SEP-2164): -32602; both with the URI in the data."""
    for uri in NOT_THERE:
        with pytest.raises(MCPError) as raised:
            await client.read_resource(uri)
        assert raised.value.error.code == (-32602 if era == "2026-07-28" else -32002), uri
        assert raised.value.error.data["uri"] == uri
        assert raised.value.error.message
    assert not upstream.changes()


async def test_invalid_id_in_a_uri_is_refused(upstream: Upstream, client: Client) -> None:
    """A URI cannot pass a value that an argument could not."""
    before = len(upstream.requests())
    for id_ in ("..%2Fapi-keys", "%2e%2e", "a%20b", "-x", "a%00"):
        for kind in ("customers", "connections"):
            with pytest.raises(MCPError, match="not an id") as raised:
                await client.read_resource(f"fastn://{kind}/{id_}")
            assert raised.value.error.code == -32602
    assert len(upstream.requests()) == before


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
