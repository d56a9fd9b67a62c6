"""Starts the server that lies beside this file as a wheel; `uv run` has installed it."""

from fastn_mcp.cli.program import main

main()
