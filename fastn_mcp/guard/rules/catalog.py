"""What can be said of the tools: their names, the effects that each can have, the arguments it takes. Pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from fastn_mcp.nearest import nearest
from fastn_mcp.operation import Effect
from fastn_mcp.renamed import ALIASES, Aliases
from fastn_mcp.tools import CATALOG, AnyOperation

CHANGING = tuple(operation for operation in CATALOG if operation.effect is not Effect.READ)
"""The tools of which a policy can say something: reads are always allowed."""


def possible_effects(operation: AnyOperation) -> frozenset[Effect]:
    """The effects that calls of a tool can have: its own, and those that arguments or facts raise it to."""
    return frozenset({operation.effect, *operation.raises_to})


def named(glob: str, aliases: Aliases = ALIASES) -> list[AnyOperation]:
    """The tools that a glob names, by a name that they have or had.

    Raises `ValueError` where it names none that changes something.
    """
    renamed = {alias.to for old, alias in aliases.items() if fnmatchcase(old, glob.casefold())}

    def meant(operation: AnyOperation) -> bool:
        name = operation.tool_name()
        return name in renamed or fnmatchcase(name, glob.casefold())

    found = [operation for operation in CHANGING if meant(operation)]
    if found:
        return found
    if any(meant(operation) for operation in CATALOG):
        raise ValueError(f"{glob!r} names only tools that read, and reads are always allowed")
    raise ValueError(f"{glob!r} names no tool{nearest(glob, (operation.tool_name() for operation in CHANGING))}")


def kind_of(operations: Iterable[AnyOperation], argument: str) -> str:
    """What can be compared with an argument: `text` or `number`. Raises `ValueError`."""
    takers = [operation for operation in operations if argument in operation.model_fields]
    if not takers:
        known = sorted({name for operation in operations for name in operation.model_fields})
        raise ValueError(f"none of its tools has an argument {argument!r}{nearest(argument, known)}")
    if any(argument in operation.secrets() for operation in takers):
        raise ValueError(f"{argument!r} is a secret, of which a policy file must hold nothing")
    shapes = [operation.input_schema()["properties"][argument] for operation in takers]
    kinds = {_KINDS.get(shape["items"]["type"] if shape["type"] == "array" else shape["type"]) for shape in shapes}
    if len(kinds) > 1 or None in kinds:
        raise ValueError(f"{argument!r} has parts, and only texts and numbers can be compared")
    return str(kinds.pop())


_KINDS = {"string": "text", "integer": "number"}
