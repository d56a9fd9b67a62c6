"""Doctor's checks of the connection to Fastn: names, proxies, certificates; each failure says what to do."""

import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from support.clock import Clock
from support.doctor_runs import Proxy, run_proxy, sandbox_in, serve_sandbox
from support.ports import free_port
from support.raw_server import serving

from fastn_mcp.build.check import Check, CheckResult
from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.addresses import address_of, named_by
from fastn_mcp.config.load import load
from fastn_mcp.extensions.doctor import machine
from fastn_mcp.extensions.doctor.machine import check_network
from fastn_mcp.extensions.doctor.runner import Examination, summary

PROXY = "http://proxy.example:3128"
NAMED: list[tuple[dict[str, str], str, bool]] = [
    ({}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY}, "https://live.fastn.ai", True),
    ({"https_proxy": PROXY}, "https://live.fastn.ai", True),
    ({"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY}, "http://127.0.0.1:1", False),
    ({"HTTPS_PROXY": PROXY}, "https://127.0.0.1:1", False),
    ({"HTTPS_PROXY": PROXY}, "https://localhost", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "a.example, fastn.ai"}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".FASTN.ai"}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY, "no_proxy": "live.fastn.ai:443"}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "live.fastn.ai:8443"}, "https://live.fastn.ai", True),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "stn.ai,,"}, "https://live.fastn.ai", True),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.1.2.3"}, "https://10.1.2.3", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd00::1]"}, "https://[fd00::1]", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "fe80::1"}, "https://[fe80::1]", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "fe80::1"}, "https://[fe80::2]", True),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "foo, 10.0.0.0/8"}, "https://10.1.2.3", False),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", True),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "https://live.fastn.ai", True),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "foo,*"}, "https://live.fastn.ai", False),
    ({"HTTPS_PROXY": PROXY}, "https://[fd00::1", False),
    ({"HTTPS_PROXY": PROXY}, "https://live.fastn.ai:x", False),
]


@pytest.mark.parametrize(("environment", "url", "goes_through"), NAMED)
def test_proxy_variables_respect_no_proxy(environment: dict[str, str], url: str, goes_through: bool) -> None:
    found = named_by(environment, url)
    assert (found is not None) == goes_through
    assert found is None or found[1] == PROXY


@given(st.text(max_size=30))
def test_any_no_proxy_is_accepted(entries: str) -> None:
    assert named_by({"HTTPS_PROXY": PROXY, "NO_PROXY": entries}, "https://live.fastn.ai") in (
        None,
        ("HTTPS_PROXY", PROXY),
    )


def test_proxy_is_shown_without_its_password() -> None:
    assert address_of("http://jane:C4N4RY@proxy.example:3128") == "proxy.example:3128"
    assert address_of("http://[fd00::1]") == "[fd00::1]:80"


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return file


async def look(
    url: str, options: TransportOptions | None = None, environment: Mapping[str, str] | None = None
) -> Check:
    return (await check_network(url, options or TransportOptions(), environment or {}))[0]


async def failing(
    url: str, options: TransportOptions | None = None, environment: Mapping[str, str] | None = None
) -> Check:
    """Return the check of a connection that fails, which says what to do."""
    check = await look(url, options, environment)
    assert check.verdict is CheckResult.FAILED
    assert check.next
    return check


async def test_failed_step_is_named(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    assert "its name cannot be resolved (DNS)" in (await failing("https://no-such-host.invalid")).finding
    assert "it refuses the connection" in (await failing(f"https://127.0.0.1:{free_port()}")).finding
    port = free_port()
    gone = await failing("https://fastn.test", TransportOptions(proxy=f"http://127.0.0.1:{port}"))
    assert "the proxy (FASTN_PROXY) refuses the connection" in gone.finding
    assert str(port) not in gone.finding + gone.next  # the report may be passed on
    unknown = await failing("https://fastn.test", TransportOptions(proxy="http://no-such-proxy.invalid:1"))
    assert "the name of the proxy (FASTN_PROXY) cannot be resolved" in unknown.finding
    with serve_sandbox(sandbox_in("usual")) as port:
        assert "TLS failed" in (await failing(f"https://127.0.0.1:{port}")).finding
        await failing("https://fastn.test", TransportOptions(proxy=f"http://127.0.0.1:{port}"))
        well = await look(f"http://127.0.0.1:{port}", TransportOptions(proxy="http://no-such-proxy.invalid"))
        assert (well.verdict, well.finding) == (CheckResult.OK, "Plain http, on this machine.")
    with run_proxy(Proxy(refuses=True)) as proxy:
        forbidden = await failing("https://fastn.test", TransportOptions(proxy=proxy.url))
        assert "refused the connection (403)" in forbidden.finding
        await failing("https://[fd00::1]", TransportOptions(proxy=proxy.url))
        assert proxy.asked == ["CONNECT fastn.test:443", "CONNECT [fd00::1]:443"]
    sandbox = sandbox_in("usual")
    with serve_sandbox(sandbox, ca.issue_cert("127.0.0.1"), tmp_path) as port:
        there = f"https://127.0.0.1:{port}"
        assert "not trusted" in (await failing(there)).finding
        assert "cannot be read" in (await failing(there, TransportOptions(ca_file=tmp_path / "none.pem"))).finding
        other = await failing(f"https://localhost:{port}", TransportOptions(ca_file=ca_file))
        assert "its certificate is for another host" in other.finding
        assert not sandbox.requests
        well = await look(there, TransportOptions(ca_file=ca_file))
        assert (well.verdict, "and of ca_file" in well.finding) == (CheckResult.OK, True)


async def test_variables_of_other_programs_are_named(tmp_path: Path) -> None:
    environment = {"CURL_CA_BUNDLE": "/etc/ca.pem", "ALL_PROXY": "http://jane:C4N4RY@proxy:1", "PIP_CERT": ""}
    stranger = trustme.CA()
    with serve_sandbox(sandbox_in("usual"), stranger.issue_cert("127.0.0.1"), tmp_path) as port:
        check = await failing(f"https://127.0.0.1:{port}", environment=environment)
    assert check.next.endswith("get certificates from CURL_CA_BUNDLE: set FASTN_CA_FILE to the same.")
    check = await failing(f"https://127.0.0.1:{free_port()}", environment=environment)
    assert check.next.endswith("get a proxy from ALL_PROXY: set FASTN_PROXY to the same.")
    own = TransportOptions(proxy="http://no-such-proxy.invalid:1")
    assert "ALL_PROXY" not in (await failing("https://fastn.test", own, environment)).next


async def test_variables_of_other_programs_are_not_named_where_they_do_not_help(
    ca: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    environment = {"CURL_CA_BUNDLE": "/etc/ca.pem", "ALL_PROXY": PROXY}
    trusted = TransportOptions(ca_file=ca_file)
    with serve_sandbox(sandbox_in("usual"), ca.issue_cert("fastn.example"), tmp_path) as port:
        for host in ("localhost", "127.0.0.1"):
            other = await failing(f"https://{host}:{port}", trusted, environment)
            assert "for another host" in other.finding
            assert ".." not in other.finding
            assert "Other programs" not in other.next
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with serve_sandbox(sandbox_in("usual"), ca.issue_cert("127.0.0.1", not_after=yesterday), tmp_path) as port:
        expired = await failing(f"https://127.0.0.1:{port}", trusted, environment)
        assert "not valid now" in expired.finding
        assert "Other programs" not in expired.next
    unreadable = await failing("https://127.0.0.1:1", TransportOptions(ca_file=tmp_path / "none.pem"), environment)
    assert "Other programs" not in unreadable.next


async def test_silent_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = TransportOptions(None, f"http://127.0.0.1:{silent.getsockname()[1]}", "HTTPS_PROXY")
        check = await failing("https://fastn.test", options)
    assert check.finding == "No response arrived through the proxy (HTTPS_PROXY)."
    assert check.next == "Check that the proxy answers, and HTTPS_PROXY."


@pytest.mark.parametrize(("is_answering", "expected"), [(True, "1 request, 0 changes"), (False, "nothing was sent")])
async def test_lost_request_is_counted(is_answering: bool, expected: str) -> None:
    async with serving(b"no HTTP\r\n\r\n") as wire:
        url = wire.url if is_answering else f"http://127.0.0.1:{free_port()}"
        settings = load({"api_key": "fsk_test_sandbox", "base_url": url}, {}, None)
        report = await Examination(settings, {}, (), None, Clock().system(), lambda _: None).run([])
    assert f"; {expected}." in summary(report)
