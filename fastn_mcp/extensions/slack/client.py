"""Slack's Web API and Socket Mode, by Slack's own SDK. Imported only if Slack is configured.

Its logger is silenced, since what it logs includes addresses with tickets. What has to be known is logged here.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import aiohttp
from pydantic import JsonValue
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient
from typing_extensions import override

from fastn_mcp.channels.background import BackgroundTasks
from fastn_mcp.extensions.slack.blocks import Reference, SlackFailed, notice, reference_in

log = logging.getLogger(__name__)

_SILENT_LOGGER = logging.Logger("slack_sdk", logging.CRITICAL + 1)

_REQUEST_TIMEOUT = 10
"""Seconds for one request."""

_ACKNOWLEDGE_WITHIN = 2.0
"""Seconds in which a dialog gets its answer. Slack gives up after three."""

_FIRST_PAUSE = 5.0
"""Seconds before a connection that failed is tried again. They double until `_MAX_PAUSE`."""

_MAX_PAUSE = 300.0

_UNREADABLE = "This message was made by another server, or by another version of this one. Nothing was decided."

_TOO_SLOW = "This takes longer than Slack waits. The request's message will show the outcome."
_FAILED = "Internal error. Your answer may have counted: see the message of the request and the server log."

Payload = Mapping[str, Any]
Handle = Callable[[Payload, Reference], Awaitable[dict[str, Any] | None]]


class SlackWeb:
    """Slack's Web API. A rate limit is waited for; no other failure repeats a request."""

    def __init__(self, url: str, token: str | None = None) -> None:
        handlers: Any = [AsyncRateLimitErrorRetryHandler(max_retry_count=2)]
        self.client: Any = AsyncWebClient(token, url, _REQUEST_TIMEOUT, logger=_SILENT_LOGGER, retry_handlers=handlers)

    async def __call__(self, method: str, **arguments: JsonValue) -> Payload:
        """Call a method of the API. Return the response. Raises `SlackFailed`."""
        kind = "json" if arguments.keys() & {"blocks", "view"} else "data"  # what only reads takes no JSON
        try:
            return cast("Payload", (await self.client.api_call(method, **{kind: arguments})).data)
        except Exception as error:
            raise SlackFailed(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Return why a request failed: a code of Slack's, or our words. The SDK may fail in any way at a foreign answer."""
    if isinstance(error, aiohttp.ClientError | OSError):
        return "no connection"
    data = getattr(cast(Any, error).response, "data", None) if isinstance(error, SlackApiError) else None
    code = str(cast("Payload", data).get("error")) if isinstance(data, dict) else ""
    return code if re.fullmatch(r"[a-z_]{1,60}", code) else "an unreadable response"


class _SlackConnection(SocketModeClient):
    """Connection that asks for an address before each attempt: the SDK tries a used one for ever. Logs why it fails."""

    @override
    async def issue_new_wss_url(self) -> str:
        return ""  # `connect` does it

    @override
    async def connect(self) -> None:
        pause = _FIRST_PAUSE
        while not self.closed:
            try:
                await self._connect_once()
                break
            except Exception as error:
                if pause == _FIRST_PAUSE and not self.closed:
                    log.warning("Slack delivers no decisions (%s). Check: fastn-mcp doctor", _reason(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)

    async def _connect_once(self) -> None:
        """Do what one round of the SDK's own loop does."""
        self.auto_reconnect_enabled = False
        if self.current_session is not None:
            await self.current_session.close()
        address = await super().issue_new_wss_url()
        self.current_session = await self.aiohttp_client_session.ws_connect(
            address, autoping=False, heartbeat=self.ping_interval, proxy=self.proxy
        )
        self.auto_reconnect_enabled = True
        self.stale = False
        self.last_ping_pong_time = None
        untyped = cast(Any, self)
        for old in (untyped.current_session_monitor, untyped.message_receiver):
            if old is not None:
                old.cancel()
        self.current_session_monitor = asyncio.ensure_future(self.monitor_current_session())
        self.message_receiver = asyncio.ensure_future(self.receive_messages())


class SlackSocket:
    """Socket Mode of one app. Slack delivers each click and each dialog to one of the app's connections."""

    def __init__(self, app_token: str, url: str, handle: Handle) -> None:
        self._app_token = app_token
        self._url = url
        self._handle = handle
        self._tasks = BackgroundTasks()
        self._connection: _SlackConnection | None = None

    def begin(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._connection = _SlackConnection(self._app_token, _SILENT_LOGGER, SlackWeb(self._url).client)
        self._connection.socket_mode_request_listeners.append(cast(Any, self._receive))
        self._tasks.begin(self._connection.connect())

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        await self._tasks.aclose()

    async def _receive(self, connection: SocketModeClient, envelope: SocketModeRequest) -> None:
        """Acknowledge an envelope: a dialog with its answer, everything else before it is handled."""
        payload = cast(Payload, cast(Any, envelope).payload)
        answer = None
        work = self._tasks.begin(self._handled(payload))
        if payload.get("type") == "view_submission":
            done, _ = await asyncio.wait({work}, timeout=_ACKNOWLEDGE_WITHIN)
            answer = work.result() if done else notice(_TOO_SLOW)
        await connection.send_socket_mode_response(SocketModeResponse(envelope.envelope_id, answer))

    async def _handled(self, payload: Payload) -> dict[str, Any] | None:
        try:
            about = reference_in(payload)
        except (ValueError, TypeError):
            about = None
        try:
            return notice(_UNREADABLE) if about is None else await self._handle(payload, about)
        except Exception:
            log.exception("a message from Slack could not be handled")
            return notice(_FAILED)
