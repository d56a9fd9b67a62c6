"""Prompts with the SDK's client, on both transports and in both protocol versions."""

import pytest
from mcp import Client, MCPError
from mcp.types import ResourceTemplateReference, TextContent
from support.server_process import Connect, each_era, each_transport_and_era

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.prompts import available


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
    async with connect("stdio", era, flags=("--read-only",)) as client:
        assert "rotate_api_key" not in [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert "access_review" in [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert len((await client.list_resource_templates()).resource_templates) == 10
        with pytest.raises(MCPError, match="disabled here"):
            await client.get_prompt("rotate_api_key", {"key": "x"})
    async with connect("stdio", era, flags=("--toolsets", "customers")) as client:
        assert (await client.list_prompts()).prompts == []
        assert (await client.list_resources()).resources == []
        (only,) = (await client.list_resource_templates()).resource_templates
        assert only.uri_template == "fastn://customers/{customer_id}"
        with pytest.raises(MCPError, match="no such resource"):
            await client.read_resource("fastn://billing")
        typed = {"name": "customer_id", "value": "acme"}
        customer = ResourceTemplateReference(uri="fastn://customers/{customer_id}")
        (wanted, *_) = (await client.complete(customer, typed)).completion.values
        assert (await client.read_resource(f"fastn://customers/{wanted}")).contents
        workflow = ResourceTemplateReference(uri="fastn://workflows/{workflow_id}")
        with pytest.raises(MCPError, match="no such resource template"):
            await client.complete(workflow, {"name": "workflow_id", "value": "acme"})
