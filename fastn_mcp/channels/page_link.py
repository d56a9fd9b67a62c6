"""The approval page, offered by the client: URL-mode elicitation, in legacy and current protocol versions.

The client's answer says whether the person went to the page. It never decides anything: only the page does.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from mcp.server import ServerRequestContext
from mcp.types import CallToolRequestParams, ElicitRequest, ElicitRequestURLParams, InputRequiredResult

from fastn_mcp.channels.elicitation_form import MODERN
from fastn_mcp.guard.approval.request import PendingApproval
from fastn_mcp.runtime import System

Context = ServerRequestContext[Any]

_KEY = "page"


class ElicitedLink:
    """Up to 2025-11-25: the client offers the page while the call waits, and is told once it was decided."""

    def __init__(self, ctx: Context, id_: str) -> None:
        self._ctx = ctx
        self._id = id_

    async def __call__(self, waiting: PendingApproval, wait: Callable[[], Awaitable[bool]]) -> bool:
        # Caught inside, since a task group would raise it as an exception group.
        failure: Exception = AssertionError("the wait ended neither way")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._offer, waiting)
            try:
                is_decided = await wait()
                if is_decided:
                    await self._ctx.session.send_elicit_complete(self._id, self._ctx.request_id)
                return is_decided
            except Exception as error:
                failure = error
            finally:
                tasks.cancel_scope.cancel()
        raise failure

    async def _offer(self, waiting: PendingApproval) -> None:
        link = _link(waiting)
        with suppress(Exception):  # whatever the client answers decides nothing, an error included
            await self._ctx.session.elicit_url(link.message, link.url, self._id, self._ctx.request_id)


class RoundTripLink:
    """From 2026-07-28: the call returns the link at once. The client repeats the call when the person was there."""

    async def __call__(self, waiting: PendingApproval, wait: Callable[[], Awaitable[bool]]) -> bool:  # noqa: ARG002
        return False


def page_link(ctx: Context, params: CallToolRequestParams, system: System) -> ElicitedLink | RoundTripLink | None:
    """Return the link of this client; None if it opens no URLs, or repeats a call that returned the link."""
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.elicitation is None or capabilities.elicitation.url is None:
        return None
    if ctx.protocol_version >= MODERN:
        return None if _KEY in (params.input_responses or {}) else RoundTripLink()
    return ElicitedLink(ctx, system.token()) if ctx.session.can_send_request else None


def leads_to_page(waiting: PendingApproval) -> InputRequiredResult:
    """Return the result that offers the page. It needs no state: the repeated call finds its open request."""
    return InputRequiredResult(input_requests={_KEY: ElicitRequest(params=_link(waiting))})


def _link(waiting: PendingApproval) -> ElicitRequestURLParams:
    said = (
        f"{waiting.preview.lines()[0]}\nDecide on the approval page, then come back here. Opening it approves nothing."
    )
    return ElicitRequestURLParams(message=said, url=waiting.page or "")
