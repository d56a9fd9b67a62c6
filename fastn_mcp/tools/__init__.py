"""Declaration of tools, and the 42 API operations."""
