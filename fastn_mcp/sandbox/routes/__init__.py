"""The handler of each operation, and the permission that it needs."""

from typing import NamedTuple

from fastn_mcp.sandbox.auth import OWNERS_ONLY
from fastn_mcp.sandbox.request_context import Handler
from fastn_mcp.sandbox.routes import account, ai, connectors, customers, keys, triggers, workflows
from fastn_mcp.tools import catalog
from fastn_mcp.tools.catalog import AnyOperation


class Endpoint(NamedTuple):
    """`permission` is `None` for what every key may do: no group guards the reading of customers."""

    handler: Handler
    permission: str | None


ENDPOINTS: dict[AnyOperation, Endpoint] = {
    catalog.ListCustomers: Endpoint(customers.list_all, None),
    catalog.GetCustomer: Endpoint(customers.get, None),
    catalog.CreateCustomer: Endpoint(customers.create, "settings:manage"),
    catalog.UpdateCustomer: Endpoint(customers.update, "settings:manage"),
    catalog.DeleteCustomer: Endpoint(customers.delete, "settings:manage"),
    catalog.ListConnectors: Endpoint(connectors.CONNECTORS.listing(), "connectors:read"),
    catalog.GetConnector: Endpoint(connectors.get, "connectors:read"),
    catalog.CreateConnector: Endpoint(connectors.create_connector, "connectors:create"),
    catalog.UpdateConnector: Endpoint(connectors.update, "connectors:update"),
    catalog.DeleteConnector: Endpoint(connectors.delete_connector, "connectors:delete"),
    catalog.ListConnections: Endpoint(connectors.CONNECTIONS.listing(), "connections:read"),
    catalog.CreateConnection: Endpoint(connectors.create_connection, "connections:create"),
    catalog.DeleteConnection: Endpoint(connectors.delete_connection, "connections:delete"),
    catalog.ListWorkflows: Endpoint(workflows.WORKFLOWS.listing(), "workflows:read"),
    catalog.GetWorkflow: Endpoint(workflows.get_workflow, "workflows:read"),
    catalog.CreateWorkflow: Endpoint(workflows.create, "workflows:create"),
    catalog.UpdateWorkflow: Endpoint(workflows.update, "workflows:update"),
    catalog.DeleteWorkflow: Endpoint(workflows.delete, "workflows:delete"),
    catalog.RunWorkflow: Endpoint(workflows.run, "workflows:execute"),
    catalog.ListTriggers: Endpoint(triggers.TRIGGERS.listing(), "events:read"),
    catalog.GetTrigger: Endpoint(triggers.get, "events:read"),
    catalog.CreateTrigger: Endpoint(triggers.create, "events:create"),
    catalog.UpdateTrigger: Endpoint(triggers.update, "events:update"),
    catalog.DeleteTrigger: Endpoint(triggers.delete, "events:delete"),
    catalog.ListExecutions: Endpoint(workflows.list_all, "executions:read"),
    catalog.GetExecution: Endpoint(workflows.get_execution, "executions:read"),
    catalog.ListUsers: Endpoint(customers.USERS.listing(), "users:read"),
    catalog.InviteUser: Endpoint(customers.invite, "users:invite"),
    catalog.ListRoles: Endpoint(customers.ROLES.listing(), "settings:read"),
    catalog.CreateRole: Endpoint(customers.create_role, "settings:manage"),
    catalog.ListApiKeys: Endpoint(keys.API_KEYS.listing(), "settings:manage"),
    catalog.CreateApiKey: Endpoint(keys.create_api_key, "settings:manage"),
    catalog.RevokeApiKey: Endpoint(keys.revoke, "settings:manage"),
    catalog.ListSecrets: Endpoint(keys.SECRETS.listing(), "secrets:read"),
    catalog.CreateSecret: Endpoint(keys.create_secret, "secrets:write"),
    catalog.DeleteSecret: Endpoint(keys.delete, "secrets:delete"),
    catalog.GetBilling: Endpoint(account.billing, "settings:read"),
    catalog.GetUsage: Endpoint(account.usage, "settings:read"),
    catalog.GetQuotas: Endpoint(account.quotas, "settings:read"),
    catalog.QueryAuditLog: Endpoint(account.audit, OWNERS_ONLY),
    catalog.AiChat: Endpoint(ai.chat, OWNERS_ONLY),
    catalog.AiBuild: Endpoint(ai.build, OWNERS_ONLY),
}
