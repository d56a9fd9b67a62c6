"""Where approvals, budgets and the journal are stored."""
