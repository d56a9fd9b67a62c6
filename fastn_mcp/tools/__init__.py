"""How a tool is declared, and the 42 operations."""
