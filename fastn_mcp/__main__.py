"""`python -m fastn_mcp` is `fastn-mcp`."""

from fastn_mcp.cli.program import main

main()
