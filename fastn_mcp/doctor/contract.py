"""What an operation's answer is compared with: the fields that the server uses, and those that lists show. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastn_mcp.offer import Record
from fastn_mcp.tools import CATALOG, AnyOperation
from fastn_mcp.tools.listing import List

_SINGULAR = {"api_keys": "key", "users": "user", "audit": "entry"}
_OTHERWISE: dict[str, tuple[str, ...]] = {
    "id": ("uuid", "uid"),
    "name": ("title", "displayName", "label"),
    "status": ("state",),
}
# Third parties read these of /orgs. In rows of other resources they are whose the row is.
_OF_CUSTOMERS = {"id": ("orgId", "endOrgId", "externalRef")}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`missing` are fields that the server uses and no row has, `renamed` those that are there by another name.

    `unseen` are shown in lists where they are there; that none was there proves nothing.
    """

    missing: tuple[str, ...]
    renamed: Mapping[str, str]
    unseen: tuple[str, ...]


def record_of(operation: AnyOperation) -> type[Record]:
    """What one row of its answers is thought to be."""
    if issubclass(operation, List):
        (record,) = cast(Any, operation.returns.model_fields["items"].annotation).__args__
        return cast("type[Record]", record)
    return operation.returns


def compared(operation: AnyOperation, fields: Collection[str]) -> Comparison:
    """What was declared, beside the fields that were there."""
    record = record_of(operation)
    absent = [name for name in dict.fromkeys((*record.model_fields, *record.columns)) if name not in fields]
    renamed = {name: other for name in absent if (other := _other(operation, name, fields)) is not None}
    missing = tuple(name for name in absent if name in record.model_fields and name not in renamed)
    unseen = tuple(name for name in absent if name not in record.model_fields and name not in renamed)
    return Comparison(missing, renamed, unseen)


def listing_of(operation: AnyOperation) -> AnyOperation | None:
    """The list whose rows have the ids that this operation takes in its path."""
    for other in CATALOG:
        if issubclass(other, List) and other.toolset() == operation.toolset() and operation.route.parameters:
            return cast(AnyOperation, other)
    return None


def _other(operation: AnyOperation, name: str, fields: Collection[str]) -> str | None:
    """The field that is the same one by another name. One that another declared field stands for is none."""
    declared = {*record_of(operation).model_fields, *record_of(operation).columns}
    free = [field for field in fields if field not in declared]
    singular = _SINGULAR.get(operation.toolset(), operation.toolset().removesuffix("s"))
    known = [f"{singular}{name}", *_OTHERWISE[name]] if name in _OTHERWISE else []
    if operation.toolset() == "customers":
        known += _OF_CUSTOMERS.get(name, ())
    plain = {_plain(field): field for field in free}
    return next((plain[found] for other in (name, *known) if (found := _plain(other)) in plain), None)


def _plain(name: str) -> str:
    return name.replace("_", "").casefold()
