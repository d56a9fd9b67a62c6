"""Tools for customers, the companies whose accounts Fastn connects."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue
from typing_extensions import override

from fastn_mcp.records.rows import FastnObject, Row, row_of, text
from fastn_mcp.records.states import is_pending
from fastn_mcp.redaction import name_as_read
from fastn_mcp.tools.fields import EMAIL, CustomerId, Extra, Name, Search, one_of
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, INFERRED, POST, PUT, Create, Operation, Update
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect

Slug = Annotated[str | None, Field(description="Stable, for example acme-corp.")]
ExternalRef = Annotated[str | None, Field(description="Your reference.")]

AdminEmail = Annotated[str | None, Field(description="Administrator, who is invited."), EMAIL]
Plan = Annotated[str | None, Field(description="For example Free.")]


class Customer(FastnObject):
    columns = ("id", "name", "slug", "status", "plan", "connectionsCount", "createdAt")

    id: JsonValue = None
    name: JsonValue = None


class ListCustomers(List[Customer]):
    """List all customers (tenants). Those in Pending Admin Activation run nothing."""

    route = GET("/api/v1/customers")
    evidence = DOCUMENTED("third parties: {data: [{externalRef, endOrgId}]}; the path is /api/v1/orgs there")

    search: Search = None
    status: Annotated[str | None, *one_of("Active", "Pending Admin Activation")] = None


class GetCustomer(Operation[Customer]):
    """Get one customer."""

    route = GET("/api/v1/customers/{customer_id}")
    effect = Effect.READ
    evidence = INFERRED("api-reference, customers")

    customer_id: CustomerId


class CreateCustomer(Create[Customer]):
    """Add a new customer, pending until its admin accepts the invitation."""

    route = POST("/api/v1/customers")
    effect = Effect.WRITE
    evidence = DOCUMENTED("third parties: name, slug, external_ref, plan; the path is /api/v1/orgs there")
    raises_to = (Effect.EXTERNAL, Effect.ACCESS)
    # A customer's administrator is documented, the name of its field in a request is not: any field may be it.
    extra_effect = Effect.ACCESS

    name: Name
    slug: Slug = None
    external_ref: ExternalRef = None
    admin_email: AdminEmail = None
    plan: Plan = None
    extra: Extra = None

    @property
    @override
    def effective(self) -> Effect:
        return super().effective if self.admin_email is None else Effect.ACCESS  # who is invited may connect apps

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        is_safe = target is None or (self.external_ref is None and is_pending(row_of(target)))
        return self.effective if is_safe else self.effective.raised_to(Effect.EXTERNAL)

    @property
    @override
    def looked_for(self) -> Mapping[str, str]:
        texts = {**super().looked_for}
        return texts if not self.external_ref else {"slug": texts["slug"], "externalRef": self.external_ref, **texts}

    @override
    def may_overwrite(self, row: Row) -> bool | None:
        own = name_as_read(self.external_ref) if self.external_ref else ""
        is_same = own and own == name_as_read(text(row, "externalRef"))
        return True if is_same else super().may_overwrite(row)


class UpdateCustomer(Update[Customer]):
    """Rename a customer or change its named fields."""

    route = PUT("/api/v1/customers/{customer_id}")
    effect = Effect.WRITE
    evidence = INFERRED("api-reference, customers")
    raises_to = (Effect.EXTERNAL, Effect.ACCESS)
    extra_effect = CreateCustomer.extra_effect
    clears = frozenset({"externalRef", "plan"})

    customer_id: CustomerId
    name: Name | None = None
    external_ref: ExternalRef = None
    admin_email: AdminEmail = None
    plan: Plan = None
    extra: Extra = None

    @property
    @override
    def effective(self) -> Effect:
        return super().effective if self.admin_email is None else Effect.ACCESS  # who is invited may connect apps

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        # People recognise a customer that is in use by its name, and type it to delete it; runs find it by its
        # reference.
        moves_reference = self.external_ref is not None or "externalRef" in (self.extra or {})
        is_safe = not moves_reference and (self.name is None or is_pending(row_of(target)))
        return self.effective if is_safe else self.effective.raised_to(Effect.EXTERNAL)


class DeleteCustomer(Operation[FastnObject]):
    """Delete a customer for good, with its connections, credentials and secrets."""

    route = DELETE("/api/v1/customers/{customer_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("customers, danger zone")

    customer_id: CustomerId
