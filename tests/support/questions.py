"""Questions made by hand, for tests of what is done with one."""

from typing import Any

from fastn_mcp.ledger.question import Question


def a_question(**parts: Any) -> Question:
    """Return a question with these parts, by default about the deletion of a customer."""
    defaults: dict[str, Any] = {
        "title": 'Delete customer "Acme".',
        "button": 'Delete "Acme"',
        "brief": 'Delete customer "Acme"',
        "tool": "delete_customer",
        "arguments": {"customer_id": "cus_1"},
        "account": "default at live.fastn.ai",
        "target": "cus_1",
        "name": "Acme",
        "expected": "Acme",
    }
    return Question(**(defaults | parts))
