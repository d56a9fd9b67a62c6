"""Puts the server into the configuration of MCP clients, and takes it out again. Knows no MCP and sends nothing."""
