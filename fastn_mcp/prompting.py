"""Prompts over MCP: lists the recipes, and fills them in. One of the modules that know MCP."""

from collections.abc import Sequence

from mcp import MCPError
from mcp.types import (
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from fastn_mcp.errors import NotSent
from fastn_mcp.nearest import nearest
from fastn_mcp.offer import AnyOffer
from fastn_mcp.prompts import BY_NAME, Recipe, within


class Prompting:
    """The prompts that these operations allow."""

    def __init__(self, offered: Sequence[AnyOffer]) -> None:
        self._recipes = {recipe.name: recipe for recipe in within(offered)}
        self.listed = ListPromptsResult(prompts=[_prompt(recipe) for recipe in self._recipes.values()])

    def get(self, params: GetPromptRequestParams) -> GetPromptResult:
        """The message. Raises `MCPError`."""
        recipe = self._recipes.get(params.name)
        if recipe is None:
            why = f"There is no prompt {params.name[:64]!r}{nearest(params.name, self._recipes)}. See prompts/list."
            if params.name in BY_NAME:
                why = f"{params.name} needs tools that are switched off here, by the settings of this server."
            raise MCPError(INVALID_PARAMS, why)
        try:
            text = recipe.fill(params.arguments or {})
        except NotSent as error:
            raise MCPError(INVALID_PARAMS, str(error)) from None
        message = PromptMessage(role="user", content=TextContent(type="text", text=text))
        return GetPromptResult(description=recipe.description, messages=[message])


def _prompt(recipe: Recipe) -> Prompt:
    return Prompt(
        name=recipe.name,
        title=recipe.title,
        description=recipe.description,
        arguments=[
            PromptArgument(name=argument.name, description=argument.description, required=True)
            for argument in recipe.arguments
        ],
    )
