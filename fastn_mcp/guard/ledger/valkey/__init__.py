"""The ledger on Valkey."""
