"""Storage of approvals, budgets and the change journal."""
