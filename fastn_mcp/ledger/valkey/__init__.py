"""Ledger on Valkey."""
