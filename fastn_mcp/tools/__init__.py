"""Declaration of tools, and the operations of the API."""
