"""fastn-mcp with httpx2's own transport in place of this project's, for tests that run it as a process."""

from fastn_mcp.cli.program import main
from fastn_mcp.client import exchange

if __name__ == "__main__":
    exchange.transport_of = exchange.library_transport
    main()
