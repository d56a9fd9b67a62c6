"""How a person is asked for an approval."""
