"""The large account, for tests of scale."""
