"""Catalog of the API operations, in the order in which tools are listed."""

from typing import Any

from fastn_mcp.tools import access, ai, billing, connectors, customers, triggers, workflows
from fastn_mcp.tools.operation import Operation

AnyOperation = type[Operation[Any]]

CATALOG: tuple[AnyOperation, ...] = (
    customers.ListCustomers,
    customers.GetCustomer,
    customers.CreateCustomer,
    customers.UpdateCustomer,
    customers.DeleteCustomer,
    connectors.ListConnectors,
    connectors.GetConnector,
    connectors.CreateConnector,
    connectors.UpdateConnector,
    connectors.DeleteConnector,
    connectors.ListConnections,
    connectors.CreateConnection,
    connectors.DeleteConnection,
    workflows.ListWorkflows,
    workflows.GetWorkflow,
    workflows.CreateWorkflow,
    workflows.UpdateWorkflow,
    workflows.DeleteWorkflow,
    workflows.RunWorkflow,
    triggers.ListTriggers,
    triggers.GetTrigger,
    triggers.CreateTrigger,
    triggers.UpdateTrigger,
    triggers.DeleteTrigger,
    workflows.ListExecutions,
    workflows.GetExecution,
    access.ListUsers,
    access.InviteUser,
    access.ListRoles,
    access.CreateRole,
    access.ListApiKeys,
    access.CreateApiKey,
    access.RevokeApiKey,
    access.ListSecrets,
    access.CreateSecret,
    access.DeleteSecret,
    billing.GetBilling,
    billing.GetUsage,
    billing.GetQuotas,
    access.QueryAuditLog,
    ai.AiChat,
    ai.AiBuild,
)

OPERATIONS: dict[str, AnyOperation] = {operation.tool_name(): operation for operation in CATALOG}
