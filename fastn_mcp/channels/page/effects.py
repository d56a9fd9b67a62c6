"""Words and mark of each effect: the same in a request, after its call, among the limits and in a filter."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastn_mcp.guard.undo import NotUndoable, undo_of
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.question import Question
from fastn_mcp.records.formats import sentence
from fastn_mcp.records.platform import IN_TRASH
from fastn_mcp.tools.tool import Effect


@dataclass(frozen=True, slots=True)
class EffectWords:
    """What is said of an effect."""

    words: str
    """What one call does."""
    kinds: str = ""
    """Which changes have it."""
    mark: str = "plain"


EFFECTS: Mapping[Effect, EffectWords] = {
    Effect.READ: EffectWords("Reads", "Read"),
    Effect.WRITE: EffectWords("Not in use yet", "Create, or change unused resources"),
    Effect.EXTERNAL: EffectWords("Affects live data", "Run workflows, or change resources in use"),
    Effect.SPEND: EffectWords("Spends AI credits", "Ask Fastn's AI", "spend"),
    Effect.ACCESS: EffectWords("Gives access", "Invitations, roles, API keys, secrets", "access"),
    Effect.TRASH: EffectWords(sentence(IN_TRASH), "Move to Trash"),
    Effect.DESTROY: EffectWords("Can be created again", "Delete, revoke"),
}
LOST = EffectWords("Cannot be fully undone", mark="lost")
"""Red only where data that exists is lost."""

_AI = ("ai_chat", "ai_build")
_BY_TOOL = {
    "create_secret": EffectWords("Stores a secret", mark="access"),
    "run_workflow": EffectWords("Acts in other systems"),
    "ai_chat": EffectWords("Makes changes without asking", mark="access"),
    "ai_build": EffectWords("Makes changes without asking", mark="access"),
}
"""Where a tool says more than its effect."""


def effect_words(tool: str, effect: Effect, *, is_lost: bool) -> EffectWords:
    """Return what a call does. `is_lost`: data that exists is permanently lost."""
    if is_lost:
        return LOST
    if tool in _AI and effect is not Effect.ACCESS:  # it asks before each change
        return EFFECTS[effect]
    return _BY_TOOL.get(tool, EFFECTS[effect])


def loses_data(effect: Effect, question: Question | None, change: Change | None) -> bool:
    """Whether a call loses data that existed, by what people were asked, or else by what its undo cannot restore."""
    if question is not None:
        return bool(question.lost)
    if effect is not Effect.DESTROY:
        return False
    undo = undo_of(change) if change is not None else None
    return undo is None or isinstance(undo, NotUndoable) or bool(undo.lost)
