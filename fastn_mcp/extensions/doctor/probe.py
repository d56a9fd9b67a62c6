"""Requests of `doctor` to Fastn, limited to GET and OPTIONS and paced by its rate limit, and the check of the key."""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from fastn_mcp.build.check import Check, CheckGroup, seconds_ahead
from fastn_mcp.client.exchange import CHECK_ADDRESS, Answer, Exchange, NotSentError, ResponseLost, headers
from fastn_mcp.client.retry import announce_wait, exhausted_for, retry_after
from fastn_mcp.config.model import Settings, kind_of
from fastn_mcp.errors import NotSent, RateLimited
from fastn_mcp.extensions.doctor.proposal import Proposal
from fastn_mcp.runtime import System
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Request, Route
from fastn_mcp.tools.workflows import ListWorkflows

MAX_REQUESTS = 250
"""Maximum number of requests of one run; about 40 are usual."""

MAX_PAUSE = 75.0
"""Longest wait for a rate limit, in seconds: limits are per minute, and a run may take longer than a call."""

MAX_PAUSES = 300.0
"""Longest sum of all waits, in seconds."""

_SAFE_METHODS = ("GET", "OPTIONS")


class Probe:
    """Exchange that refuses any request that could change something, and keeps the last answer."""

    def __init__(self, exchange: Exchange, system: System) -> None:
        self._exchange = exchange
        self._system = system
        self._paused = 0.0
        self.sent = 0
        self.last: Answer | None = None
        self.ahead: float | None = None
        """Seconds by which Fastn's clock is ahead of this machine's, as its last answer says; None if unknown."""

    async def switch(self, exchange: Exchange) -> None:
        """Replace the exchange, to send other headers."""
        await self._exchange.aclose()
        self._exchange = exchange

    async def __call__(self, request: Request) -> Answer:
        """Send a request as the exchange does. Raises `NotSent` for other methods, `RateLimited` for a long wait."""
        self.last = None
        if request.method not in _SAFE_METHODS or request.body is not None:
            raise NotSent(f"doctor sends no {request.method}.")
        answer = await self._send(request)
        now = self._system.now()
        seconds = exhausted_for(answer.headers, now)
        if answer.status == 429:
            await self._pause(retry_after(answer.headers, now) or seconds)
            answer = await self._send(request)
        elif seconds is not None:
            await self._pause(seconds)
        self.last = answer
        return answer

    async def _send(self, request: Request) -> Answer:
        if self.sent >= MAX_REQUESTS:
            raise NotSent(
                f"doctor sends {MAX_REQUESTS} requests at most.", "Run it again with fewer toolsets in --tools."
            )
        self.sent += 1
        began = self._system.timestamp()
        answer = await self._exchange(request)
        self.ahead = seconds_ahead(answer.headers.get("date"), began, self._system.timestamp())
        return answer

    async def _pause(self, seconds: float | None) -> None:
        if seconds is None or seconds > MAX_PAUSE or self._paused + seconds > MAX_PAUSES:
            raise RateLimited("Fastn's rate limit is used up.", "Run doctor again in some minutes.")
        self._paused += seconds
        await announce_wait(f"Fastn's rate limit is used up. It opens again in {seconds:.0f} s.")
        await self._system.sleep(seconds)

    async def aclose(self) -> None:
        await self._exchange.aclose()


_OTHER_PATHS = {
    "/api/v1/customers": ("/api/v1/orgs", "/api/v1/organizations"),  # third parties; the classic API
    "/api/v1/triggers": ("/api/v1/app-triggers",),  # third parties
    "/api/v1/audit": ("/api/v1/audit-log",),  # Fastn's documentation
    "/api/v1/api-keys": ("/api/v1/api-access",),  # the classic API
    "/api/v1/billing/usage": ("/api/v1/quota/usage",),  # the classic API
    "/api/v1/billing/quotas": ("/api/v1/quota/summary", "/api/v1/quota/daily"),  # the classic API
    # Fastn's documentation, third parties
    "/api/v1/workflows/{workflow_id}/run": ("/api/v1/workflows/{workflow_id}/execute",),
    "/api/v1/ai/build": ("/api/v1/ai/generate", "/api/v1/ai/run"),  # the classic API
}
"""Beginnings of declared paths, with those on other accounts. The comments say who documents them."""


def alternatives(operation: AnyOperation) -> tuple[Route, ...]:
    """Return the other routes that an operation may have."""
    path = operation.route.path
    return tuple(
        Route(operation.route.method, other + path.removeprefix(declared))
        for declared, others in _OTHER_PATHS.items()
        if path == declared or path.startswith(f"{declared}/")
        for other in others
    )


# --- the key: in which header it is accepted, and with or without the test mode --------------------------------------

_NAME = "authentication"
_PATHS = tuple(
    route.path
    for operation in (ListWorkflows, ListConnectors, ListCustomers)
    for route in (operation.route, *alternatives(operation))
)
"""Lists that nearly every key may read."""

_MODE = "x-fastn-test-mode"

# Third parties and Fastn's own package send keys there. Shown to the person, likeliest first, and never tried: a key is
# sent only to the host that it was given for.
_OTHER_HOSTS = (
    "Fastn is also known at api.fastn.dev (with --auth bearer), live.gcp.fastn.ai, app.fastn.dev. Set --base-url to"
    " the one that your dashboard uses."
)


def _style(account: Settings) -> str:
    """Say in which header an account sends its key, and whether in test mode."""
    header = "x-fastn-api-key" if account.auth == "header" else "Authorization: Bearer"
    return f"{header} {'with' if account.test_mode == 'on' else 'without'} X-fastn-Test-Mode"


def check_form(key: str) -> Check:
    kind = kind_of(key)
    if kind != "unknown":
        return CheckGroup.KEY.ok("key format", f"A {kind} key (fsk_{kind}_).")
    hint = "If it is refused: keys of this API begin with fsk_test_ or fsk_live_ (dashboard: Settings > API keys)."
    return CheckGroup.KEY.ok("key format", "It has neither a test key's nor a live key's prefix.", hint)


class KeyProbe:
    """Check of one account's key, on lists that nearly every key may read."""

    def __init__(self, account: Settings, exchange: Callable[[Mapping[str, str]], Exchange], probe: Probe) -> None:
        self._account = account
        self._exchange = exchange
        self._probe = probe
        sends_mode = any(name.lower() == _MODE for name in headers(account))
        own = account.model_copy(update={"test_mode": "on" if sends_mode else "off"})
        other = own.model_copy(update={"auth": "bearer" if own.auth == "header" else "header"})
        # The current settings first, then the ones that differ least from them.
        mode = {"test_mode": "off" if sends_mode else "on"}
        self._accounts = [own, other, own.model_copy(update=mode), other.model_copy(update=mode)]

    async def check(self, proposal: Proposal) -> tuple[Check, Settings | None]:
        """Check how the key is accepted. Return the account that sends it so, or None if the key is refused.

        Settings that have to change are added to the proposal. Raises `FastnError` if the rate limit is used up.
        """
        refused: list[str] = []
        try:
            path, control = await self._without_key()
            if path is None:
                return _nothing_there(control), None
            if control.status >= 500:
                return _unusable(f"Fastn answers with an error ({control.status})."), None
            for account in self._accounts:
                answer = await self._get(headers(account), path)
                if answer.status < 300 and answer.is_foreign:
                    return _website(answer), None
                if _accepts(answer, control):
                    return self._accepted(account, refused, control, proposal), account
                refused.append(f"{_style(account)}: {answer.status}")
        except (NotSentError, ResponseLost) as error:
            return _unusable(f"The connection breaks ({error})."), None
        hint = f"Check the key (dashboard: Settings > API keys), or the host. {_OTHER_HOSTS}"
        if not any((self._account.space_id, self._account.tenant_id, self._account.env)):
            hint += " Older accounts also need FASTN_SPACE_ID and FASTN_TENANT_ID."
        return CheckGroup.KEY.failed(_NAME, f"The key is refused in every way: {'; '.join(refused)}.", hint), None

    async def _without_key(self) -> tuple[str | None, Answer]:
        """Return an existing path, or None, and its answer without a key."""
        bare = {name: value for name, value in headers(self._account).items() if self._account.api_key not in value}
        answers: list[Answer] = []
        for path in _PATHS:
            answer = await self._get(bare, path)
            answers.append(answer)
            if answer.status not in (404, 405, 410) and not 300 <= answer.status < 400:
                return path, answer
        return None, answers[-1]

    async def _get(self, sent: Mapping[str, str], path: str) -> Answer:
        await self._probe.switch(self._exchange(sent))
        return await self._probe(Request("GET", path, {"limit": 1}))

    def _accepted(self, account: Settings, refused: list[str], control: Answer, proposal: Proposal) -> Check:
        finding = f"Accepted: {_style(account)}{f' ({len(refused) + 1} tried)' if refused else ''}."
        if control.status < 300:
            finding += " Requests without a key are answered, too."
        if not refused:
            return CheckGroup.KEY.ok(_NAME, finding)
        changed = [name for name in ("auth", "test_mode") if getattr(account, name) != getattr(self._accounts[0], name)]
        proposal.settings |= {name: getattr(account, name) for name in changed}
        finding += f" Refused: {'; '.join(refused)}."
        return CheckGroup.KEY.differs(_NAME, finding, f"Set {' and '.join(changed)} as proposed below.")


def _unusable(finding: str) -> Check:
    return CheckGroup.KEY.failed(_NAME, finding, "Run doctor again later.")


def _website(answer: Answer) -> Check:
    hint = f"{CHECK_ADDRESS} {_OTHER_HOSTS}"
    return CheckGroup.KEY.failed(
        _NAME, f"The answer ({answer.status}) is not JSON, so it is not from Fastn's API.", hint
    )


def _nothing_there(answer: Answer) -> Check:
    if 300 <= answer.status < 400:
        to = urlsplit(answer.headers.get("location", "")).netloc
        finding = f"Every request is redirected ({answer.status}), which is never followed."
        here = f"To {to}." if to and to.isascii() and to.isprintable() else ""
        hint = "If you know the host that it names, set FASTN_BASE_URL to it."
        return CheckGroup.KEY.failed(_NAME, finding, hint, here)
    finding = f"Nothing is at the paths of Fastn's API ({answer.status})."
    return CheckGroup.KEY.failed(_NAME, finding, f"Check FASTN_BASE_URL. {_OTHER_HOSTS}")


def _accepts(answer: Answer, control: Answer) -> bool:
    """Whether the key is accepted: also on a 403 or 404, if a request without a key gets another status."""
    if answer.status < 300:
        return True
    return answer.status != control.status and answer.status not in (401, 429) and answer.status < 500
