"""`python -m fastn_mcp` is `fastn-mcp`."""

from fastn_mcp.cli import main

main()
