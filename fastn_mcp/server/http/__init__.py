"""MCP over HTTP on this machine, and what a server for a team shares with it: stateless, so that any replica can
answer."""
