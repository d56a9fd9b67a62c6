"""Why no connection could be made, in words, with the step that helps: refused, DNS, TLS, time-out and proxy apart."""

import socket
import ssl
from collections.abc import Iterator

import httpcore2

from fastn_mcp.client.way import Way
from fastn_mcp.proxies import address_of

CHECK_CA_FILE = "Check FASTN_CA_FILE and SSL_CERT_FILE."
_DOCTOR = "fastn-mcp doctor checks each step."

# OpenSSL's X509_V_ERR codes.
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64


def unreachable(error: Exception, through: Way | None) -> tuple[str, str]:
    """The reason and the next step. `through` has the proxy in use; its name and password are not shown."""
    proxy = None if through is None else _shown(through)
    if isinstance(error, httpcore2.ProxyError):
        return _refused_by_proxy(str(error)[:3], proxy or "the proxy")
    cause = next((each for each in _causes(error) if isinstance(each, OSError)), None)
    by_way_of = f", through {proxy}" if proxy else ""
    if isinstance(cause, ssl.SSLError):
        reason, next_step = _tls(cause)
        return reason + by_way_of, next_step
    # Before TLS, whatever goes wrong goes wrong on the way to the proxy, where there is one.
    whose, named = (proxy or "it"), (through.proxy_from if through else "FASTN_BASE_URL")
    if isinstance(cause, socket.gaierror):
        what = f"the name of {whose} cannot be resolved" if proxy else "its name cannot be resolved (DNS)"
        return what, f"Check the host in {named}, and the DNS of this machine. {_DOCTOR}"
    if isinstance(cause, ConnectionRefusedError):
        return f"{whose} refuses the connection", f"Check host and port in {named}, and that it runs. {_DOCTOR}"
    if isinstance(error, httpcore2.ConnectTimeout):
        blocked = (
            "a firewall may be in the way"
            if proxy
            else "a firewall may be in the way, or a proxy be needed (FASTN_PROXY)"
        )
        return f"{whose} did not take the connection in time", f"Check {named} and the network; {blocked}. {_DOCTOR}"
    detail = cause.strerror if cause is not None and cause.strerror else type(error).__name__
    return f"{detail}{by_way_of}", f"Check the network and {named}. {_DOCTOR}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _shown(way: Way) -> str:
    return f"the proxy {address_of(way.proxy or '')} ({way.proxy_from})"


def _refused_by_proxy(status: str, named: str) -> tuple[str, str]:
    """What a proxy says is not ours to repeat: its status alone."""
    if status == "407":
        return f"{named} wants a name and a password (407)", "Put them into FASTN_PROXY: http://NAME:PASSWORD@HOST:PORT"
    return f"{named} refused the connection ({status})", f"Ask who runs the proxy to let this host through. {_DOCTOR}"


def _tls(error: ssl.SSLError) -> tuple[str, str]:
    if not isinstance(error, ssl.SSLCertVerificationError):
        detail = (error.reason or type(error).__name__).replace("_", " ").lower()
        return f"TLS failed ({detail})", f"Check that FASTN_BASE_URL names an https address. {_DOCTOR}"
    reason = error.verify_message
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"its certificate is for another host: {reason}", f"Check the host in FASTN_BASE_URL. {_DOCTOR}"
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"its certificate is not valid now: {reason}",
            "Check this machine's clock; else it must be renewed.",
        )
    company = "Where a company's proxy inspects TLS, set FASTN_CA_FILE to the file of its certificate."
    return f"its certificate is not trusted: {reason}", f"{company} {_DOCTOR}"
