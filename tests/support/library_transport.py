"""httpx2's own transport in place of this project's; run as a program, fastn-mcp with it."""

import ssl

import httpx2


def library_transport(tls: ssl.SSLContext | None, proxy: httpx2.Proxy | None) -> httpx2.AsyncBaseTransport:
    """Return httpx2's transport, with a new connection for each request.

    In a connection that is kept, it takes bytes that follow a response for the response to the next request.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx2.AsyncHTTPTransport(verify=tls or False, trust_env=False, proxy=proxy, limits=limits)


if __name__ == "__main__":
    from fastn_mcp.cli.program import main
    from fastn_mcp.client import exchange

    setattr(exchange, "HttpTransport", library_transport)  # noqa: B010 - its type is that of a class
    main()
