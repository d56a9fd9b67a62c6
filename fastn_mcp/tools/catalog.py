"""The operations of Fastn's API, in the order in which tools are listed."""

from typing import Any

from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.api_keys import CreateApiKey, ListApiKeys, RevokeApiKey
from fastn_mcp.tools.audit import QueryAuditLog
from fastn_mcp.tools.billing import GetBilling, GetQuotas, GetUsage
from fastn_mcp.tools.connections import CreateConnection, DeleteConnection, ListConnections
from fastn_mcp.tools.connectors import CreateConnector, DeleteConnector, GetConnector, ListConnectors, UpdateConnector
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.executions import GetExecution, ListExecutions
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.roles import CreateRole, ListRoles
from fastn_mcp.tools.secrets import CreateSecret, DeleteSecret, ListSecrets
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, GetTrigger, ListTriggers, UpdateTrigger
from fastn_mcp.tools.users import InviteUser, ListUsers
from fastn_mcp.tools.workflows import (
    CreateWorkflow,
    DeleteWorkflow,
    GetWorkflow,
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

BY_NAME: dict[str, AnyOperation] = {operation.tool_name(): operation for operation in CATALOG}
