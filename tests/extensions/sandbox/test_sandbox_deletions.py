"""Tests of the cascades of deletions."""

from support.direct_sandbox import Fastn

from fastn_mcp.tools.access import DeleteSecret, ListSecrets
from fastn_mcp.tools.connectors import DeleteConnection, DeleteConnector, ListConnections
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.triggers import DeleteTrigger
from fastn_mcp.tools.workflows import DeleteWorkflow, GetWorkflow, ListExecutions

ORDERS, INVENTORY, TRACKING = "wf_0d93ee5b1f62", "wf_c27aa8f04e19", "wf_3a8e47d19b60"


def test_customer_deletion_removes_connections_and_secrets(fastn: Fastn) -> None:
    """Fastn's documentation: the danger zone. The cascade is assumed."""
    globex = fastn.id_of("customers", "globex-exports")
    assert fastn(ListConnections(customer_id=globex)).data
    assert fastn(ListSecrets(customer_id=globex)).data
    others = len(fastn(ListConnections()).data)

    assert fastn(DeleteCustomer(customer_id=globex)).data == {"id": globex, "deleted": True}

    assert fastn(ListConnections(customer_id=globex)).data == []
    assert fastn(ListSecrets(customer_id=globex)).data == []
    assert len(fastn(ListConnections()).data) == others - 1
    paid = fastn.sandbox.state.named("triggers", "Paid Shopify orders", by="name")
    assert (paid["status"], paid["subscriptionStatus"]) == ("Disabled", "FAILED")
    assert fastn(DeleteCustomer(customer_id=globex)).status == 404


def test_connector_deletion_removes_connections_and_stops_users(fastn: Fastn) -> None:
    """Fastn's documentation: all its connections are deleted, and workflows and triggers that use it stop."""
    shopify = fastn.id_of("connectors", "shopify")

    fastn(DeleteConnector(connector_id=shopify))

    assert fastn(ListConnections(connector_id=shopify)).data == []
    assert fastn(GetWorkflow(workflow_id=ORDERS)).data["status"] == "inactive"
    stopped = {str(row["name"]) for row in fastn.sandbox.state.all("triggers") if row["status"] == "Disabled"}
    assert {"Paid Shopify orders", "Tracking updates (public)"} <= stopped
    untouched = fastn.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    assert (untouched["status"], untouched["version"]) == ("Active", 1)


def test_connection_deletion_fails_subscriptions(fastn: Fastn) -> None:
    """Fastn's documentation: Active is not subscribed; an app event needs an active connection."""
    answer = fastn(DeleteConnection(connection_id=fastn.connection("widget-inc", "hubspot")))

    assert (answer.status, answer.reply.body) == (204, b"")
    assert "content-length" not in answer.reply.headers
    contacts = fastn.sandbox.state.named("triggers", "New HubSpot contact", by="name")
    assert (contacts["status"], contacts["subscriptionStatus"]) == ("Active", "FAILED")


def test_deleted_workflow_is_gone_and_keeps_its_runs(fastn: Fastn) -> None:
    """Fastn's documentation: deletion moves to Trash, from which only the dashboard restores it."""
    fastn(DeleteWorkflow(workflow_id=TRACKING))

    assert fastn(GetWorkflow(workflow_id=TRACKING)).status == 404
    assert fastn(DeleteWorkflow(workflow_id=ORDERS)).status == 200
    assert fastn(ListExecutions(workflow_id=ORDERS)).data


def test_trigger_stops_with_its_last_workflow(fastn: Fastn) -> None:
    """Fastn's documentation: one webhook can start several workflows."""

    def shop() -> object:
        return fastn.sandbox.state.named("triggers", "Shop events", by="name")["status"]

    fastn(DeleteWorkflow(workflow_id=ORDERS))
    assert shop() == "Active"
    fastn(DeleteWorkflow(workflow_id=INVENTORY))
    assert shop() == "Disabled"


def test_trigger_and_secret_deletions_answer_204(fastn: Fastn) -> None:
    trigger = fastn.id_of("triggers", "Shop events", by="name")
    secret = fastn.id_of("secrets", "GOOGLE_SA", by="name")

    assert [fastn(DeleteTrigger(trigger_id=trigger)).status, fastn(DeleteSecret(secret_id=secret)).status] == [204, 204]
    assert [fastn(DeleteTrigger(trigger_id=trigger)).status, fastn(DeleteSecret(secret_id=secret)).status] == [404, 404]
