"""Catalog of the API operations, in the order in which tools are listed."""

from typing import Any

from fastn_mcp.tools.access import (
    CreateApiKey,
    CreateRole,
    CreateSecret,
    DeleteSecret,
    InviteUser,
    ListApiKeys,
    ListRoles,
    ListSecrets,
    ListUsers,
    QueryAuditLog,
    RevokeApiKey,
)
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.billing import GetBilling, GetQuotas, GetUsage
from fastn_mcp.tools.connectors import (
    CreateConnection,
    CreateConnector,
    DeleteConnection,
    DeleteConnector,
    GetConnector,
    ListConnections,
    ListConnectors,
    UpdateConnector,
)
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, GetTrigger, ListTriggers, UpdateTrigger
from fastn_mcp.tools.workflows import (
    CreateWorkflow,
    DeleteWorkflow,
    GetExecution,
    GetWorkflow,
    ListExecutions,
    ListWorkflows,
    RunWorkflow,
    UpdateWorkflow,
)

AnyOperation = type[Operation[Any]]

CATALOG: tuple[AnyOperation, ...] = (
    ListCustomers,
    GetCustomer,
    CreateCustomer,
    UpdateCustomer,
    DeleteCustomer,
    ListConnectors,
    GetConnector,
    CreateConnector,
    UpdateConnector,
    DeleteConnector,
    ListConnections,
    CreateConnection,
    DeleteConnection,
    ListWorkflows,
    GetWorkflow,
    CreateWorkflow,
    UpdateWorkflow,
    DeleteWorkflow,
    RunWorkflow,
    ListTriggers,
    GetTrigger,
    CreateTrigger,
    UpdateTrigger,
    DeleteTrigger,
    ListExecutions,
    GetExecution,
    ListUsers,
    InviteUser,
    ListRoles,
    CreateRole,
    ListApiKeys,
    CreateApiKey,
    RevokeApiKey,
    ListSecrets,
    CreateSecret,
    DeleteSecret,
    GetBilling,
    GetUsage,
    GetQuotas,
    QueryAuditLog,
    AiChat,
    AiBuild,
)

OPERATIONS: dict[str, AnyOperation] = {operation.tool_name(): operation for operation in CATALOG}
