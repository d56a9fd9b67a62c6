"""Store on Valkey."""
