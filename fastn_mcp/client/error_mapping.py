"""Mapping of Fastn's error responses and of failed connections to errors of this package.

Fastn's text may hold account data: it goes into the facts, never into our messages.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from typing import cast

import httpx2
from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.addresses import address_of
from fastn_mcp.errors import (
    Conflict,
    Failed,
    FastnError,
    Forbidden,
    Invalid,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unauthorized,
    os_reason,
)

# A 401 whose code starts so is about a connection's credentials, not about the API key.
_CONNECTION_CODES = ("CONN-", "CONNECTOR_", "EVT-", "WEBHOOK_")
_MAX_TEXT = 500
_MAX_STRUCTURE = 2_000


def facts(status: int, headers: Mapping[str, str], body: JsonValue) -> dict[str, JsonValue]:
    """Return the status, code, message, details and request id of an error response, whatever its shape."""
    details: dict[str, JsonValue] = {"status": status}
    error: JsonValue = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        for name in ("code", "message", "details"):
            value = error.get(name)
            if isinstance(value, (str, int)):
                details[name] = str(value)[:_MAX_TEXT]
            elif value is not None:
                details[name] = _short(value)
        debug = error.get("datasourceDebug")
        if isinstance(debug, dict):
            details["details"] = _short(debug)
    elif isinstance(error, str):
        details["message"] = error[:_MAX_TEXT]
    request_id = headers.get("x-request-id") or (body.get("requestId") if isinstance(body, dict) else None)
    if isinstance(request_id, str):
        details["request_id"] = request_id[:100]
    return details


def _short(value: JsonValue) -> JsonValue:
    """Return a structure as it is if it is small, else the beginning of its JSON."""
    text = to_json(value).decode()
    return value if len(text) <= _MAX_STRUCTURE else text[:_MAX_STRUCTURE]


_PERMISSION = re.compile(r"\b[a-z][a-z_-]{1,30}:[a-z][a-z_-]{1,30}\b")
"""A permission such as `connectors:delete`."""
_INVALID = (Invalid, "Fastn rejected the values", "Correct what Fastn refuses, and call again.")
_SENT_BACK = (
    "If you did not give that field, Fastn refuses what it returned itself: tell the operator."
    " FASTN_UPDATE=partial sends only the given fields."
)
_CONFLICT = (
    Conflict,
    "The call conflicts with the current state",
    "The same call would fail again: see fastn.message.",
)
_DEFINITE: dict[int, tuple[type[Rejected], str, str]] = {
    **dict.fromkeys((400, 413, 415, 422), _INVALID),
    **dict.fromkeys((409, 412), _CONFLICT),
    402: (QuotaExceeded, "The plan does not cover this", "See get_billing and get_quotas."),
    403: (
        Forbidden,
        "The API key is not allowed to do this",
        "fastn.message may say why. If a permission is missing, use a key that has it: see list_api_keys.",
    ),
}

_CUSTOMER_ERRORS: dict[str, tuple[str, str]] = {
    "does not serve the requesting tenant": (
        "The installation does not belong to the customer of this run",
        "Give customer_id together with the installation_id of that customer.",
    ),
    "outside your tenant scope": (
        "This API key may not act for this customer",
        "Check the customer with list_customers, or use a key for every customer (list_api_keys).",
    ),
    "no active connection": (
        "The customer has no active connection that this run could use",
        "See list_connections for the customer. A workflow that a widget installed needs installation_id as well.",
    ),
}
"""Fastn's messages about a run for a customer, in lower case: what each means, and the next step."""


def error_of(
    status: int, reply: Mapping[str, JsonValue], *, key_hint: str, not_found: tuple[str, str], is_merged: bool
) -> FastnError:
    """Return the error for a definite answer.

    `key_hint` is the next step if the key is not accepted; `not_found` is what a 404 means, and its next step.
    `is_merged`: the request had fields that Fastn returned and the caller did not name.
    """
    code = str(reply.get("code") or "")
    detail: dict[str, JsonValue] = {"fastn": dict(reply)}
    if status == 401 and code.startswith(_CONNECTION_CODES):
        return Failed(
            "The credentials of a connection were refused (401); the API key is fine.",
            "See list_connections; the customer has to authorise it again.",
            facts=detail,
        )
    if status == 401:
        return Unauthorized("Fastn does not accept the API key (401).", key_hint, facts=detail)
    if status == 429:
        return QuotaExceeded(
            "A quota is used up (429); waiting a moment does not help.", "See get_quotas.", facts=detail
        )
    if 300 <= status < 400:
        return Failed(
            f"Fastn answered with a redirect ({status}), which is never followed.",
            "Check FASTN_BASE_URL: it may name the wrong host.",
            facts=detail,
        )
    if status == 404 or status in _DEFINITE:
        kind, what, next_step = (NotFound, *not_found) if status == 404 else _DEFINITE[status]
        message = str(reply.get("message")).lower()
        if status == 403 and (permission := _PERMISSION.search(message)) is not None:
            what = f"{what}; Fastn names the permission {permission.group()}"
        if kind is Invalid and is_merged:
            next_step = f"{next_step} {_SENT_BACK}"
        what, next_step = next((hint for text, hint in _CUSTOMER_ERRORS.items() if text in message), (what, next_step))
        return kind(f"{what.removesuffix('.')} ({status}).", next_step, facts=detail)
    return Failed(f"Fastn answered with an error ({status}).", "fastn.message may say why.", facts=detail)


def throttled(reply: Mapping[str, JsonValue], wait: float | None) -> FastnError:
    """Return the error for a 429 that waiting may clear. `wait` is in seconds; None if Fastn does not state it."""
    detail: dict[str, JsonValue] = {"fastn": dict(reply)}
    if wait is not None:
        detail["retry_after_seconds"] = round(wait, 1)
    when = f"in {wait:.0f} seconds" if wait is not None else "in some minutes"
    return RateLimited("Fastn's rate limit is reached (429).", f"Call again {when}.", facts=detail)


CHECK_CA_FILE = "Check FASTN_CA_FILE and SSL_CERT_FILE."

# OpenSSL's X509_V_ERR codes.
NOT_VALID_NOW = (9, 10)
OTHER_HOST = (62, 64)


def unreachable(error: Exception, through: TransportOptions | None) -> tuple[str, str]:
    """Return the reason and the next step. `through` has the proxy in use; its user name and password are not shown."""
    proxy = through and f"the proxy {address_of(through.proxy or '')} ({through.proxy_from})"
    if isinstance(error, httpx2.ProxyError):
        return _refused_by_proxy(str(error)[:3], proxy or "the proxy")
    cause = cause_of(error)
    via_proxy = f", through {proxy}" if proxy else ""
    if isinstance(cause, ssl.SSLError):
        reason, next_step = _tls(cause)
        return reason + via_proxy, next_step
    # Failures before TLS are on the way to the proxy, if there is one.
    peer = proxy or "it"
    setting = through.proxy_from if through else "FASTN_BASE_URL"
    if isinstance(cause, (socket.gaierror, UnicodeError)):
        what = f"the name of {peer} cannot be resolved" if proxy else "its name cannot be resolved (DNS)"
        return what, f"Check the host in {setting}, and the DNS of this machine."
    if isinstance(cause, ConnectionRefusedError):
        return f"{peer} refuses the connection", f"Check host and port in {setting}, and that it runs."
    if isinstance(error, httpx2.ConnectTimeout) or isinstance(cause, TimeoutError):
        blocked = (
            "a firewall may be in the way"
            if proxy
            else "a firewall may be in the way, or a proxy be needed (FASTN_PROXY)"
        )
        return f"{peer} did not accept the connection in time", f"Check {setting} and the network; {blocked}."
    if cause is None or (isinstance(cause, ConnectionError) and not cause.strerror):
        return f"{peer} closed the connection", f"Check {setting} and the network."
    return f"{os_reason(cause)}{via_proxy}", f"Check the network and {setting}."


def lost_reason(error: httpx2.TransportError) -> str:
    """Return why the response was lost: never the text of the error, which may hold a part of the response."""
    if isinstance(error, httpx2.ProtocolError):
        return "the response is not valid HTTP"
    cause = cause_of(error)
    return "the connection was closed" if cause is None else os_reason(cause)


def cause_of(error: BaseException) -> OSError | UnicodeError | None:
    """Return the first cause of an error: of the system, or an impossible host name."""
    first: OSError | UnicodeError | None = None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExceptionGroup):
            cause = cast("ExceptionGroup[Exception]", cause).exceptions[0]  # of one address of several
        # TLSStream of AnyIO handles this one, and it stays the context of what follows.
        if isinstance(cause, (OSError, UnicodeError)) and not isinstance(cause, ssl.SSLWantReadError):
            first = cause
        cause = cause.__cause__ or cause.__context__
    return first


def _refused_by_proxy(status: str, proxy: str) -> tuple[str, str]:
    """Return the reason and the next step by a proxy's status. Its text is not repeated."""
    if status == "407":
        return (
            f"{proxy} requires a user name and password (407)",
            "Put them before the host in FASTN_PROXY.",
        )
    return f"{proxy} refused the connection ({status})", "Ask who runs the proxy to let this host through."


def _tls(error: ssl.SSLError) -> tuple[str, str]:
    if not isinstance(error, ssl.SSLCertVerificationError):
        detail = (error.reason or type(error).__name__).replace("_", " ").lower()
        return f"TLS failed ({detail})", "Check that FASTN_BASE_URL names an https address."
    reason = error.verify_message.removesuffix(".")
    if error.verify_code in OTHER_HOST:
        return f"its certificate is for another host: {reason}", "Check the host in FASTN_BASE_URL."
    if error.verify_code in NOT_VALID_NOW:
        return (
            f"its certificate is not valid now: {reason}",
            "Check this machine's clock; else it must be renewed.",
        )
    company = "If a company's proxy inspects TLS, set FASTN_CA_FILE to the file of its certificate."
    return f"its certificate is not trusted: {reason}", company
