"""How the key is taken: by which header, and with or without the test mode."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from fastn_mcp.client.account import Account, headers
from fastn_mcp.client.http import Answer, Exchange, NotSentError, ResponseLost
from fastn_mcp.doctor.check import Check, CheckGroup, CheckResult, Proposal
from fastn_mcp.doctor.hosts import OTHER_HOSTS, alternatives
from fastn_mcp.doctor.probe import Looking
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.workflows import ListWorkflows

_FORMS = {"fsk_test_": "A test key (fsk_test_).", "fsk_live_": "A live key (fsk_live_)."}
_AT = tuple(
    route.path
    for operation in (ListWorkflows, ListConnectors, ListCustomers)
    for route in (operation.route, *alternatives(operation))
)
"""Lists that nearly every key may read."""
_MODE = "x-fastn-test-mode"
_OTHERS = f"Fastn is also known at {', '.join(OTHER_HOSTS)}: name the one of your dashboard with --base-url."


@dataclass(frozen=True, slots=True)
class _Style:
    """One way to send the key."""

    auth: Literal["header", "bearer"]
    testing: bool

    def __str__(self) -> str:
        header = "x-fastn-api-key" if self.auth == "header" else "Authorization: Bearer"
        return f"{header} {'with' if self.testing else 'without'} X-fastn-Test-Mode"

    def of(self, account: Account) -> Account:
        return replace(account, auth=self.auth, test_mode="on" if self.testing else "off")


def form(key: str) -> Check:
    """What kind of key it is, by how it begins."""
    kind = next((said for prefix, said in _FORMS.items() if key.startswith(prefix)), None)
    if kind is None:
        then = "If it is refused: keys of this API begin with fsk_test_ or fsk_live_ (dashboard: Settings, API keys)."
        return Check(
            CheckGroup.KEY,
            "form",
            CheckResult.OK,
            "Its prefix is neither that of test keys nor that of live keys.",
            then,
        )
    return Check(CheckGroup.KEY, "form", CheckResult.OK, kind)


class Keys:
    """Tries the key at one account, with lists that nearly every key may read."""

    def __init__(self, account: Account, exchange: Callable[[Mapping[str, str]], Exchange], looking: Looking) -> None:
        self._account = account
        self._exchange = exchange
        self._looking = looking

    async def accepted(self, proposal: Proposal) -> tuple[Check, Account | None]:
        """How the key is taken, and the account that sends it so; None where it is not taken.

        What has to be set otherwise is added to the proposal. Raises `FastnError` where the rate limit is used up.
        """
        try:
            path, control = await self._without()
            if path is None:
                return self._nowhere(control), None
            if control.status >= 500:
                seen = f"Fastn answers with an error ({control.status})."
                return Check(
                    CheckGroup.KEY, "authentication", CheckResult.FAILED, seen, "Run doctor again later."
                ), None
            refused: list[str] = []
            for style in self._styles():
                answer = await self._with(headers(style.of(self._account)), path)
                if _accepts(answer, control):
                    return self._taken(style, refused, control, proposal), style.of(self._account)
                refused.append(f"{style}: {answer.status}")
        except (NotSentError, ResponseLost) as error:
            seen = f"The connection breaks ({error})."
            return Check(CheckGroup.KEY, "authentication", CheckResult.FAILED, seen, "Run doctor again later."), None
        then = f"Check the key (dashboard: Settings, API keys), or the host. {_OTHERS}"
        if not any((self._account.space_id, self._account.tenant_id, self._account.env)):
            then += " Older accounts also want FASTN_SPACE_ID and FASTN_TENANT_ID."
        seen = f"The key is refused in every way: {'; '.join(refused)}."
        return Check(CheckGroup.KEY, "authentication", CheckResult.FAILED, seen, then), None

    def _styles(self) -> list[_Style]:
        """The one that is set first, then with as little changed as can be."""
        sent = headers(self._account)
        testing = any(name.lower() == _MODE for name in sent)
        own, other = self._account.auth, "bearer" if self._account.auth == "header" else "header"
        return [_Style(auth, mode) for mode in (testing, not testing) for auth in (own, other)]

    async def _without(self) -> tuple[str | None, Answer]:
        """A path that asks for a key, and what it answers to nobody."""
        sent = headers(self._account)
        bare = {name: value for name, value in sent.items() if self._account.api_key not in value}
        for path in _AT[:-1]:
            answer = await self._with(bare, path)
            if _is_there(answer):
                return path, answer
        answer = await self._with(bare, _AT[-1])
        return _AT[-1] if _is_there(answer) else None, answer

    async def _with(self, sent: Mapping[str, str], path: str) -> Answer:
        await self._looking.through(self._exchange(sent))
        return await self._looking(Request("GET", path, {"limit": 1}))

    def _taken(self, style: _Style, refused: list[str], control: Answer, proposal: Proposal) -> Check:
        seen = f"Taken: {style} ({len(refused) + 1} tried)." if refused else f"Taken: {style}."
        if control.status < 300:
            seen += " Requests without a key are answered, too."
        if not refused:
            return Check(CheckGroup.KEY, "authentication", CheckResult.OK, seen)
        first = self._styles()[0]
        if style.auth != first.auth:
            proposal.settings["auth"] = style.auth
        if style.testing != first.testing:
            proposal.settings["test_mode"] = "on" if style.testing else "off"
        names = " and ".join(name for name in ("auth", "test_mode") if name in proposal.settings)
        then = f"Set {names} as proposed below."
        return Check(
            CheckGroup.KEY, "authentication", CheckResult.DIFFERS, f"{seen} Refused: {'; '.join(refused)}.", then
        )

    def _nowhere(self, answer: Answer) -> Check:
        if 300 <= answer.status < 400:
            to = urlsplit(answer.headers.get("location", "")).netloc
            seen = f"Every request is redirected ({answer.status}), which is never followed."
            here = f"To {to}." if to and to.isascii() and to.isprintable() else ""
            then = "If you know the host that it names, set FASTN_BASE_URL to it."
            return Check(CheckGroup.KEY, "authentication", CheckResult.FAILED, seen, then, here)
        seen = f"Nothing is at the paths of Fastn's API ({answer.status})."
        return Check(CheckGroup.KEY, "authentication", CheckResult.FAILED, seen, f"Check FASTN_BASE_URL. {_OTHERS}")


def _is_there(answer: Answer) -> bool:
    return answer.status not in (404, 405, 410) and not 300 <= answer.status < 400


def _accepts(answer: Answer, control: Answer) -> bool:
    """Whether the key made a difference: a 403 or a 404 behind the door is one, where nobody is let in."""
    if answer.status < 300:
        return True
    return answer.status != control.status and answer.status not in (401, 429) and answer.status < 500
