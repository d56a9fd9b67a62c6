"""What a diagnosis is about: one or several resources, or the whole account."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastn_mcp.procedures.checks.failures import RunFilter
from fastn_mcp.procedures.lookup import FoundResource
from fastn_mcp.records.rows import Row, owner_of, started_workflows

_MAX_STARTED = 8
"""Maximum number of workflows that a trigger starts."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is diagnosed: resources by kind; the whole account if there are none."""

    resources: Mapping[str, FoundResource]

    @property
    def is_account(self) -> bool:
        """Whether it is the whole account."""
        return not self.resources

    @property
    def trigger(self) -> Row | None:
        return self.resources["trigger"].row if "trigger" in self.resources else None

    @property
    def customer(self) -> str | None:
        """Id of the customer: the given one, or the trigger's."""
        return self.resources["customer"].id if "customer" in self.resources else owner_of(self.trigger or {})

    @property
    def connector(self) -> str | None:
        return self.resources["connector"].id if "connector" in self.resources else None

    @property
    def workflows(self) -> list[str]:
        """Ids of the workflows: the given one, or the first workflows that the trigger starts."""
        started = started_workflows(self.trigger or {})[:_MAX_STARTED]
        return [self.resources["workflow"].id] if "workflow" in self.resources else started

    @property
    def is_any_of_customer(self) -> bool:
        """Whether the runs are one customer's runs of any workflow."""
        return self.customer is not None and not self.workflows

    @property
    def filters(self) -> list[RunFilter]:
        if self.trigger is not None and not self.workflows:
            return []
        return [RunFilter(workflow, self.customer) for workflow in self.workflows or [None]]
