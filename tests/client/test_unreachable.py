"""Failed connections over real sockets: each cause has its own message and next step."""

import datetime
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from support.library_transport import library_transport
from support.raw_server import answer, serving

from fastn_mcp.client.exchange import HttpExchange, NotSentError, ResponseLost, TransportFactory
from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.load import load
from fastn_mcp.tools.operation import Request

READ = Request("GET", "/api/v1/customers")
Failure = Callable[..., Awaitable[NotSentError]]
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@asynccontextmanager
async def listening(certificate: trustme.LeafCert | None = None, reply: bytes = b"") -> AsyncGenerator[int]:
    """Serve TLS with this certificate, or send `reply` to any input. Yields the port."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - pyOpenSSL's type is not there

    async def serve(stream: SocketStream) -> None:
        async with stream:
            if context is not None:
                await TLSStream.wrap(stream, ssl_context=context, server_side=True)
            else:
                await stream.receive()
                await stream.send(reply)

    async def quietly(stream: SocketStream) -> None:
        # The client hangs up: that is what these tests are about.
        with suppress(OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await serve(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, quietly)
        yield listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
        tasks.cancel_scope.cancel()


@pytest.fixture
def failure(transport_factory: TransportFactory) -> Failure:
    """Return why a request to an address cannot be sent."""

    async def fail(url: str, options: TransportOptions | None = None) -> NotSentError:
        async with aclosing(HttpExchange(url, {}, options, transport_factory)) as exchange:
            with anyio.fail_after(10), pytest.raises(NotSentError) as caught:
                await exchange(READ)
        return caught.value

    return fail


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{closed}", "it refuses the connection"),
        ("https://fastn.invalid", "its name cannot be resolved (DNS)"),
        ("https://a..b", "its name cannot be resolved (DNS)"),
        (f"https://{'x' * 70}.example", "its name cannot be resolved (DNS)"),
        ("https://999.999.999.999", "it is not a valid address"),
    ],
)
async def test_unreachable_address_is_reported_with_its_setting(url: str, reason: str, failure: Failure) -> None:
    """RFC 6761: names under .invalid never resolve. RFC 1035 2.3.4: limits of a name."""
    error = await failure(url.format(closed=closed_port()))
    assert str(error) == reason
    assert "FASTN_BASE_URL" in error.next_step


@pytest.mark.parametrize(
    ("identity", "not_after", "trusted", "reason", "cure"),
    [
        ("127.0.0.1", None, False, "its certificate is not trusted", "FASTN_CA_FILE"),
        ("fastn.example", None, True, "its certificate is for another host", "FASTN_BASE_URL"),
        ("127.0.0.1", YESTERDAY, True, "its certificate is not valid now", "clock"),
    ],
)
async def test_certificate_errors_are_distinguished(
    tmp_path: Path,
    identity: str,
    not_after: datetime.datetime | None,
    trusted: bool,
    reason: str,
    cure: str,
    failure: Failure,
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with listening(ca.issue_cert(identity, not_after=not_after)) as port:
        error = await failure(f"https://127.0.0.1:{port}", TransportOptions(tmp_path / "ca.pem" if trusted else None))
    assert str(error).startswith(reason)
    assert cure in error.next_step


async def test_plain_server_behind_https_is_a_tls_error(failure: Failure) -> None:
    async with listening(reply=b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = await failure(f"https://127.0.0.1:{port}")
    assert str(error).startswith("TLS failed (")


@pytest.mark.parametrize(
    ("status", "reason", "cure"),
    [
        ("407 Proxy Authentication Required", "requires a user name and password (407)", "FASTN_PROXY"),
        ("403 Forbidden", "refused the connection (403)", "who runs the proxy"),
    ],
)
async def test_refusing_proxy_is_named_without_its_password(
    status: str, reason: str, cure: str, failure: Failure
) -> None:
    async with listening(reply=f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as port:
        error = await failure("https://fastn.invalid", TransportOptions(proxy=f"http://jane:C4N4RY@127.0.0.1:{port}"))
    assert str(error) == f"the proxy 127.0.0.1:{port} (FASTN_PROXY) {reason}"
    assert cure in error.next_step
    assert "C4N4RY" not in f"{error} {error.next_step}"


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH_9\r\n\r\n"])
async def test_proxy_that_opens_no_tunnel_is_named(reply: bytes, transport_factory: TransportFactory) -> None:
    """Nothing was sent to Fastn, so the call may be repeated.

    httpx2's own transport raises the same error as for a lost response, so the stricter case is assumed with it.
    """
    async with listening(reply=reply) as port:
        options = TransportOptions(proxy=f"http://127.0.0.1:{port}")
        exchange = HttpExchange("https://fastn.invalid", {}, options, transport_factory)
        with anyio.fail_after(10), pytest.raises((NotSentError, ResponseLost)) as caught:
            await exchange(READ)
        await exchange.aclose()
    if transport_factory is library_transport:
        assert isinstance(caught.value, ResponseLost)
    else:
        assert str(caught.value) == f"the proxy 127.0.0.1:{port} (FASTN_PROXY) closed the connection"


async def test_encoded_host_name_is_sent_unchanged(failure: Failure) -> None:
    """RFC 5891: decoded and encoded again by the older rules, this name would be that of another host."""
    async with serving(answer(403)) as wire:
        await failure("https://xn--strae-oqa.example", TransportOptions(proxy=wire.url))
    assert wire.line() == "CONNECT xn--strae-oqa.example:443 HTTP/1.1"


async def test_unreachable_proxy_is_named_instead_of_fastn(failure: Failure) -> None:
    port = closed_port()
    error = await failure("https://fastn.invalid", TransportOptions(None, f"http://127.0.0.1:{port}", "HTTPS_PROXY"))
    assert str(error) == f"the proxy 127.0.0.1:{port} (HTTPS_PROXY) refuses the connection"
    assert "Check host and port in HTTPS_PROXY" in error.next_step


@pytest.mark.parametrize(
    ("file", "environment", "source"),
    [
        ("", {"https_proxy": "http://a:1"}, "https_proxy"),
        ("", {"HTTPS_PROXY": "a:1/"}, "HTTPS_PROXY"),
        ("proxy = 'http://a:1'", {"HTTPS_PROXY": "http://b:1"}, "FASTN_PROXY"),
        ("", {"HTTPS_PROXY": "http://a:1", "FASTN_PROXY": "http://a:1"}, "FASTN_PROXY"),
        ("", {}, "FASTN_PROXY"),
    ],
)
def test_proxy_is_named_by_its_variable(file: str, environment: dict[str, str], source: str, tmp_path: Path) -> None:
    """A variable shared with other programs is corrected elsewhere than our own setting."""
    config = tmp_path / "config.toml"
    config.touch(mode=0o600)
    config.write_text(file)
    assert load({"api_key": "k"}, environment, config).proxy_from == source
