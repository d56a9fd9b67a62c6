"""Checks of this machine: settings, state folder, ledger, and the connection to Fastn, without a request."""

import os
import shutil
import socket
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import anyio

from fastn_mcp.build.check import Check, CheckGroup
from fastn_mcp.build.extensions import store_checks
from fastn_mcp.build.stores import file_of, ledger_at
from fastn_mcp.client.error_mapping import NOT_VALID_NOW, OTHER_HOST, cause_of
from fastn_mcp.client.exchange import HttpExchange, NotSentError, ResponseLost
from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.addresses import address_of, is_shared
from fastn_mcp.config.model import Settings
from fastn_mcp.config.paths import require_own_folder
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.stops import in_words
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Request

_DISPLAYED_SETTINGS = ("base_url", "auth", "test_mode", "mode", "env", "profile", "update")
"""Settings whose values are shown at the terminal."""

_MIN_FREE_BYTES = 16 * 1024**2
"""Minimum free space on the disk of the state folder, in bytes."""


def check_settings(settings: Settings, file: Path | None) -> Check:
    # The place of a key may be a path.
    origins = {**settings.origins} | ({"api_key": "a file"} if {"/", "\\"} & set(settings.key_place) else {})
    listed = ", ".join(f"{name} ({origin})" for name, origin in sorted(origins.items()))
    values = ", ".join(
        f"{name} {getattr(settings, name)}" for name in _DISPLAYED_SETTINGS if getattr(settings, name) is not None
    )
    here = values + (f"; the file is {file}" if file is not None else "; no configuration file")
    return CheckGroup.SETTINGS.ok("settings", f"Set: {listed or 'nothing'}.", here=here)


def wrong_settings(error: SettingsError, file: Path | None) -> Check:
    """Report a missing or invalid setting. The path of the file is for the person at the terminal only."""
    own = "" if file is None else str(file)
    finding, hint = (text.replace(own, "FILE") if own else text for text in (error.what, error.next_step))
    here = f"FILE is {own}." if finding != error.what else ""
    return CheckGroup.SETTINGS.failed("settings", finding, hint or "Correct it, and run doctor again.", here)


def check_folder(state: Path) -> Check:
    """Check that the state folder can be written, that its disk has space, and that only its owner can open it."""
    group = CheckGroup.SETTINGS
    name = "state folder"
    here = f"The folder is {state}."
    there = next(path for path in (state, *state.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        finding = "The state folder cannot be written: no change will be sent."
        return group.failed(name, finding, "Make it writable for this user, or set FASTN_STATE_DIR.", here)
    if shutil.disk_usage(there).free < _MIN_FREE_BYTES:
        finding = "The disk of the state folder is full: no change will be sent."
        return group.failed(name, finding, "Free space on it, or set FASTN_STATE_DIR.", here)
    try:
        require_own_folder(state)
    except SettingsError as error:
        finding = "Other users of this machine can change the state folder: no server starts with it."
        return group.failed(name, finding, error.next_step.replace(str(state), "the state folder"), here)
    if os.name != "nt" and there == state and state.stat().st_mode & 0o077:
        return group.differs(
            name, "Other users of this machine can open the state folder.", "Run chmod 700 on it.", here
        )
    return group.ok(name, "It can be written." if there == state else "The first change creates it.", here=here)


async def check_ledger(setting: str | None, folder: Path, system: System) -> list[Check]:
    """Check that the ledger can be read, that changes are not stopped, and how a shared one keeps its data."""
    group = CheckGroup.SETTINGS
    try:
        ledger = ledger_at(setting, folder, system)
    except SettingsError as error:
        return [group.failed("ledger", error.what, error.next_step)]
    file = file_of(setting, folder)
    if not is_shared(setting):
        if not file.exists():
            return [group.ok("ledger", "The first change creates it.", here=f"The ledger is {file}.")]
        async with aclosing(ledger):
            return [await _check_reading(ledger, str(file), None, system)]
    checks = store_checks(str(setting))
    async with aclosing(ledger):
        weakness = checks.weakness(str(setting))
        reading = await _check_reading(ledger, checks.shown(str(setting)), weakness, system)
        return [reading, *await checks.check_store(ledger.store, system.timestamp())]


async def _check_reading(ledger: Ledger, place: str, weakness: str | None, system: System) -> Check:
    """Check that a ledger can be read, and that changes are not stopped. Otherwise tell of the address's `weakness`."""
    group = CheckGroup.SETTINGS
    here = f"The ledger is {place}."
    try:
        if isinstance(ledger.store, SqliteStore):
            await ledger.store.check()
        await ledger.check_layout()
        stops = await ledger.holding()
    except FastnError as error:
        return group.failed("ledger", error.what.replace(f" {place}", ""), error.next_step, here)
    if stops:
        sentences = " ".join(in_words(stop, system.now()) for stop in stops)
        return group.differs(
            "ledger", sentences, "A person allows them again, at a terminal or on the approval page.", here
        )
    if weakness is not None:
        finding, _, hint = weakness.partition(". ")
        return group.differs("ledger", f"{finding[0].upper()}{finding[1:]}.", hint, here)
    return group.ok("ledger", "It can be read.", here=here)


# --- the network; the key does not come into it -------------------------------------------------------------------

_CA_VARIABLES = (
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
    *("AWS_CA_BUNDLE", "PIP_CERT", "NIX_SSL_CERT_FILE"),
)
"""Variables that name a company's certificates for other programs."""

_PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "npm_config_https_proxy", "npm_config_proxy")
"""Variables that name a proxy for other programs, or for other addresses."""

_TIMEOUT = 15.0
"""Seconds for a connection and its first response."""


async def check_network(base_url: str, options: TransportOptions, environment: Mapping[str, str]) -> tuple[Check, bool]:
    """Check by a request without the key that Fastn can be reached. Returns also whether it may have arrived."""
    group = CheckGroup.CONNECTION
    name = "connection"
    is_tls = base_url.startswith("https:")
    exchange = HttpExchange(base_url, {}, options)
    try:
        with anyio.fail_after(_TIMEOUT):
            await exchange(Request("GET", "/"))
    except NotSentError as error:
        reason = str(error)
        if options.proxy is not None:
            reason = reason.replace(f" {address_of(options.proxy)}", "")
        hint = f"{error.next_step}{_hint_of_others(error, options, environment)}"
        return group.failed(name, f"Fastn cannot be reached: {reason}.", hint), False
    except (ResponseLost, TimeoutError) as error:
        why = f": {error}" if str(error) else ""
        if is_tls and options.proxy is not None:
            finding = f"No response arrived through the proxy ({options.proxy_from}){why}."
            return group.failed(name, finding, f"Check that the proxy answers, and {options.proxy_from}."), True
        return group.failed(name, f"No response arrived{why}.", "Check FASTN_BASE_URL and the network."), True
    finally:
        await exchange.aclose()
    if not is_tls:
        return group.ok(name, "Plain http, on this machine."), True
    store = "the system's certificates"
    variable = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environment.get(name)), None)
    if variable:
        store = f"the certificates of {variable}, instead of the system's"
    own = " and of ca_file" if options.ca_file else ""
    through = "Directly" if options.proxy is None else f"Through the proxy of {options.proxy_from}"
    return group.ok(name, f"{through}. Trusted: {store}{own}."), True


def _hint_of_others(error: NotSentError, options: TransportOptions, environment: Mapping[str, str]) -> str:
    """Name the variables with which other programs are told a proxy or certificates, if these may help."""
    cause = cause_of(error)
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code not in (*NOT_VALID_NOW, *OTHER_HOST):
        variables = _CA_VARIABLES
        what = "certificates"
        own = "FASTN_CA_FILE"
    elif options.proxy is None and isinstance(cause, (socket.gaierror, ConnectionRefusedError, TimeoutError)):
        variables = _PROXY_VARIABLES
        what = "a proxy"
        own = "FASTN_PROXY"
    else:
        return ""
    named = [name for name in variables if environment.get(name)]
    return f" Other programs here get {what} from {', '.join(named)}: set {own} to the same." if named else ""
