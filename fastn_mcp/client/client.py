"""Sending a call to Fastn: deadlines, retries, rate limits, merged updates and exact outcomes."""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import anyio
from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from fastn_mcp.client.cost import Spent, received, spent
from fastn_mcp.client.error_mapping import error_of, facts, throttled
from fastn_mcp.client.exchange import (
    CHECK_ADDRESS,
    Answer,
    Exchange,
    NotSentError,
    ResponseLost,
    UnreadableBody,
    from_wire,
    has_too_many_values,
    to_wire,
)
from fastn_mcp.client.retry import (
    FULL_BUDGET,
    MAX_ATTEMPTS,
    MAX_WAIT,
    AttemptOutcome,
    RateLimit,
    RateLimitStore,
    RetryBudget,
    announce_wait,
    may_retry,
    outcome_of,
    pause,
    retry_after,
)
from fastn_mcp.client.targets import read_target
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import (
    NOTHING_SENT,
    AppliedUnreadable,
    Failed,
    FastnError,
    InvalidArgument,
    NoKey,
    NotFound,
    NotSent,
    RateLimited,
    SettingsError,
    Timeout,
    TooLarge,
    Unauthorized,
    UnknownOutcome,
)
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import (
    REDACTED,
    Redactor,
    each_text,
    find_redacted,
    find_text,
    is_masked,
    quote,
    redact,
    redact_text,
    secrets_in,
    texts_in,
)
from fastn_mcp.runtime import SpanFacts, System, work_on
from fastn_mcp.tools.operation import Call, Operation, RefusedValue, Request, Update, plain, reports_failure, unwrap
from fastn_mcp.tools.related_reads import no_such, settling_read, suggested_read
from fastn_mcp.tools.tool import Effect, Tool
from fastn_mcp.tools.workflows import RunWorkflow

R = TypeVar("R", bound=FastnObject)

_CHECK = "Check the network and FASTN_BASE_URL."

_OUTDATED = "Fastn no longer accepts the API key that is in use here (401), and another one has been stored since."
_VOID = "Approvals given for the old key are void."
_MAX_ERROR_TEXT = 20_000
"""Maximum characters of a text in an error response. A longer one is replaced by its length."""

AI_SECONDS = 300.0
"""Time that a call of Fastn's AI has, unless `deadline` gives it more."""

MAX_CONCURRENT_REQUESTS = 64

MAX_QUEUED_CALLS = 1_000
"""Maximum number of calls that wait for a slot under the concurrency limit."""


class Attempts:
    """Attempts of one call, and the errors that state its outcome. `redactor` redacts the errors that Fastn answers."""

    def __init__(self, call: Call, redactor: Redactor, check: Callable[[], Awaitable[object]] | None = None) -> None:
        self.redactor = redactor
        self._call = call
        self._check = check
        self._reads = call.effect is Effect.READ
        self.operation = call.tool_name()
        self.number = 0
        self.last: AttemptOutcome | None = AttemptOutcome.NOT_SENT
        """None while an attempt is under way."""
        self.was_unknown = False

    async def check(self) -> None:
        """Raise a `FastnError` if the next attempt may not be made."""
        if self._check is not None:
            await self._check()

    def end(self, outcome: AttemptOutcome) -> None:
        self.last = outcome
        self.was_unknown |= outcome is AttemptOutcome.UNKNOWN

    def unreachable(self, host: str, error: NotSentError) -> FastnError:
        if self.was_unknown:
            return self.lost(f"Fastn at {host} can no longer be reached: {error}.", {})
        return NotSent(f"Fastn at {host} cannot be reached: {error}.", error.next_step or _CHECK)

    def lost(self, what: str, response: Mapping[str, JsonValue]) -> FastnError:
        if self._reads:
            return Failed(what, "Call again later.", facts={"fastn": dict(response)} if response else None)
        return self._with_settling_read(UnknownOutcome, what, response)

    def rejected(self, error: FastnError) -> FastnError:
        """Return `error`, or a less certain one if the call may have had effects nevertheless.

        An earlier attempt may have applied it, and a run whose workflow throws ends with 422.
        """
        response = cast("dict[str, JsonValue]", error.facts.get("fastn", {}))
        if isinstance(self._call, RunWorkflow) and response.get("status") == 422:
            what = "The workflow's code failed, or its input was refused (422)."
            stays = "Steps that it had completed before are not undone."
            return self._with_settling_read(Failed, what, response, certainty=stays)
        if self._reads or not self.was_unknown:
            return error
        return self.lost(f"An earlier attempt was lost; then: {error.what}", response)

    def timed_out(self) -> FastnError:
        if self.last is None or self.was_unknown:
            if self._reads:
                return Timeout("Fastn did not answer in time.", "Call again, or ask for less.")
            return self._with_settling_read(UnknownOutcome, "Fastn did not answer in time.")
        if self.last is AttemptOutcome.THROTTLED:
            what = "Fastn's rate limit is reached (429), and there was no time to wait."
            return RateLimited(what, "Call again later.")
        return NotSent("The call waited too long for its turn.", "Call again later.")

    def unreadable(self, why: UnreadableBody) -> FastnError:
        if self._reads:
            is_large = why in (UnreadableBody.TOO_LARGE, UnreadableBody.TOO_MANY)
            kind = TooLarge if is_large else Failed
            is_long = is_large or why is UnreadableBody.BROKEN
            next_step = (
                "Ask for less: a smaller limit, or more filters."
                if is_long
                else f"{CHECK_ADDRESS} Run: fastn-mcp doctor"
            )
            return kind(f"The answer cannot be read: {why.value}.", next_step)
        if why is UnreadableBody.FOREIGN:  # nothing shows that Fastn received the request
            return self._with_settling_read(UnknownOutcome, f"The answer cannot be read: {why.value}.")
        what = f"Fastn did it, but the answer cannot be read: {why.value}."
        return self._with_settling_read(AppliedUnreadable, what)

    def _with_settling_read(
        self,
        kind: type[FastnError],
        what: str,
        response: Mapping[str, JsonValue] | None = None,
        certainty: str | None = None,
    ) -> FastnError:
        """Return an error with the read that settles the outcome."""
        reading = settling_read(self._call)
        facts = dict[str, JsonValue]({"fastn": dict(response)} if response else {})
        next_step = "Check in the Fastn dashboard."
        if reading is not None:
            facts["settle"] = suggested_read(reading)
            next_step = f"Check with {reading.tool_name()}."
        return kind(what, next_step, certainty=certainty, facts=facts)


class FastnClient:
    """Client of one Fastn account."""

    def __init__(
        self,
        settings: Settings,
        exchange: Exchange,
        system: System,
        store: RateLimitStore | None = None,
        no_key: NoKey | None = None,
    ) -> None:
        """`store` shares a used-up rate limit between processes with the same key.

        `no_key` says why there is no usable key. Every call then fails with this error.
        """
        self.settings = settings
        self._no_key = no_key
        self._exchange = exchange
        self._system = system
        self._slots = anyio.Semaphore(MAX_CONCURRENT_REQUESTS, fast_acquire=True)
        self._retries = RetryBudget()
        self.limit = RateLimit(settings, system, store)
        self.changed: Callable[[str, bool], None] = lambda toolset, is_settled: None  # noqa: ARG005
        """Hears of each change that was sent, whatever its outcome: the toolset, and whether Fastn has done with it."""
        self.requests_sent = 0
        """Requests sent since the start, retries included."""
        self.redactor = Redactor([settings.api_key])
        """Redacts the API key of the account."""
        self.stored_key: Callable[[], str] | None = None
        """Reads the key of this account again, after a 401. Raises `SettingsError`."""
        self.key_hint: str | None = None
        """What to do if Fastn does not accept the key, in place of checking this server's own settings."""
        self.on_new_key = "A person has to restart this server, which then uses it."
        """What has to be done before another stored key is used."""
        self.is_outdated = False
        """Whether another key has been stored than the one in use, which Fastn refuses."""

    async def aclose(self) -> None:
        await self._exchange.aclose()

    def check(self, call: Tool[Any]) -> None:
        """Raise `NotSent` for a call that must not be sent.

        Without an API key, no call may be sent. An argument must not contain the account's key in any encoding, and a
        change must not contain a redacted value, which would replace the real one.
        """
        if self._no_key is not None:
            raise _missing_key(self._no_key)
        is_read = call.effect is Effect.READ
        holds_key = self.redactor.may_stand_in(call.model_dump_json().encode())
        if is_read and not holds_key:
            return
        if not is_read:
            for each in (call, *call.inner_calls):
                _check_names(each, self.settings.fields)
        arguments = call.model_dump(mode="json")
        if holds_key and (where := self.redactor.find(arguments)) is not None:
            raise InvalidArgument(
                f"{redact_text(where)}: holds the API key that this server itself uses.",
                "Leave it out. The key is sent with each request automatically; nothing else may contain it.",
            )
        if not is_read and (where := find_redacted(arguments)) is not None:
            raise InvalidArgument(
                f"{redact_text(where)}: holds {REDACTED}, which stands for a value that this server does not show.",
                "Give the real value, or leave the field out. Sent back, this text would replace the real value.",
            )

    def deadline(self, call: Operation[Any]) -> float:
        """Return the deadline of `call` in seconds."""
        seconds = self.settings.deadline
        return max(seconds, AI_SECONDS) if call.effect is Effect.SPEND else seconds

    async def send(
        self,
        call: Operation[R],
        check: Callable[[], Awaitable[object]] | None = None,
        current: FastnObject | None = None,
    ) -> R:
        """Send the call. Raises a `FastnError` that states its exact outcome.

        `check` is awaited right before each attempt to send its request, which is not made if it raises. `current` is
        the record that an update changes, if it was just read.
        """
        secrets = [] if call.effect is Effect.READ else secrets_of(call)
        redactor = Redactor([*self.redactor.secrets, *secrets]) if secrets else self.redactor
        attempts = Attempts(call, redactor, check)
        details: SpanFacts = {"operation": attempts.operation, "effect": call.effect.value}
        with self._system.span("fastn", attempts.operation, details):
            self.limit.under_way += 1
            is_settled = False
            try:
                with anyio.fail_after(self.deadline(call)):
                    result = await self._send(call, attempts, redactor, current)
                is_settled = True
                return result
            except TimeoutError:
                raise attempts.timed_out() from None
            except FastnError as error:
                is_settled = not isinstance(error, UnknownOutcome)
                error.facts = redactor.object(error.facts)
                if isinstance(error, Unauthorized) and await self._has_new_key():
                    raise Unauthorized(_OUTDATED, f"{self.on_new_key} {_VOID}", facts=error.facts) from None
                if isinstance(error, Unauthorized) and self.key_hint is not None:
                    raise Unauthorized(error.what, self.key_hint, facts=error.facts) from None
                raise
            finally:
                self.limit.under_way -= 1
                if call.effect is not Effect.READ:
                    self.changed(call.toolset(), is_settled)

    async def _has_new_key(self) -> bool:
        if self.stored_key is not None and not self.is_outdated:
            with anyio.move_on_after(5), suppress(SettingsError):  # a keyring may wait for a person
                stored = await anyio.to_thread.run_sync(self.stored_key, abandon_on_cancel=True)
                self.is_outdated = stored != self.settings.api_key
        return self.is_outdated

    async def _send(
        self, call: Operation[R], attempts: Attempts, results: Redactor, current: FastnObject | None = None
    ) -> R:
        """Send the call. `results` redacts its result; an error is redacted by the `attempts`."""
        if self._no_key is not None:
            raise _missing_key(self._no_key)
        try:
            request = call.request(self.settings.routes.get(attempts.operation))
        except RefusedValue as error:
            raise InvalidArgument(
                f"{error.argument}: {error.problem}.", "Correct the argument and call again."
            ) from None
        if self.settings.end_org_id and "x-end-org-ref" in request.headers:
            # The request would name two customers, and which one wins is not documented.
            raise InvalidArgument(
                "customer_ref: this account's settings name a customer for every request (end_org_id).",
                "Give customer_id instead, which replaces it.",
            )
        if isinstance(call, Update) and self.settings.update == "merge":
            request = await self._merged(cast(Call, call), request, attempts.redactor, current)
        if isinstance(call, Update):
            await work_on(received(), partial(_refuse_masks, request))
        if self.settings.fields and (names := self.settings.fields.get(call.toolset())):
            request = to_wire(request, names)
        if self._slots.statistics().tasks_waiting >= MAX_QUEUED_CALLS:
            raise NotSent(
                f"{MAX_QUEUED_CALLS} calls are already waiting for their turn.", "Call again once some have ended."
            )
        async with self._slots:
            answer = await self._answer(request, attempts)
        work = partial(_result, call, answer, attempts, results, self.settings)
        return await work_on(len(answer.body), work)

    async def _merged(self, call: Call, request: Request, redactor: Redactor, current: FastnObject | None) -> Request:
        """Merge the changes into the current resource, so that a `PUT` that replaces loses nothing."""

        async def read(reading: Call) -> FastnObject:
            return await self._send(reading, Attempts(reading, redactor), Redactor(()))  # sent back unredacted

        if current is None or await work_on(received(), partial(_is_redacted, current)):
            current = await read_target(call, read)
        if current is None:
            raise NotFound(*no_such(call))
        whole = current.model_dump(exclude_unset=True)
        if not whole.keys() - {"value"}:
            raise NotSent(
                "Fastn does not show the current values, so a change could lose the rest.",
                "Read it with its get tool; only a person can allow partial updates (FASTN_UPDATE=partial).",
            )
        return replace(request, body=Update.merged(whole, request.body or {}))

    async def _answer(self, request: Request, attempts: Attempts) -> Answer:
        """Send the request with retries and return its answer. Raises the failure of the last attempt."""
        failure: FastnError | None = None
        while True:
            closed = await self.limit.closed_for()
            if closed > 0:
                await self._wait_for_limit(closed, attempts)
            try:
                await attempts.check()
            except FastnError as error:
                raise failure or error from None  # what became of the attempts that were made
            attempts.number += 1
            attempts.last = None
            wait: float | None = None
            details: SpanFacts = {
                "method": request.method,
                "template": request.template,
                "base_url": self.settings.base_url,
                "resent": attempts.number - 1 or None,
            }
            try:
                with self._system.span("http", request.template, details):
                    answer = await self._exchanged(request)
                    details["status"] = answer.status
                    details["remaining"] = answer.headers.get("x-ratelimit-remaining")
                    details["error"] = answer.unreadable and answer.unreadable.name.lower()
            except NotSentError as error:
                attempts.end(AttemptOutcome.NOT_SENT)
                failure = attempts.unreachable(self.settings.host, error)
            except ResponseLost as error:
                attempts.end(AttemptOutcome.UNKNOWN)
                failure = attempts.lost(f"The response was lost ({error}).", {})
            else:
                failed, wait = await self._classify(answer, request.method, attempts)
                if failed is None:
                    return answer
                failure = failed
            await self._wait_to_retry(failure, request.method, attempts, wait)

    async def _exchanged(self, request: Request) -> Answer:
        cost = spent.get() or Spent()
        self.requests_sent += 1
        cost.requests += 1
        try:
            answer = await self._exchange(request)
        except NotSentError:
            self.requests_sent -= 1
            cost.requests -= 1
            raise
        cost.received += len(answer.body)
        return answer

    async def _classify(
        self, answer: Answer, method: str, attempts: Attempts
    ) -> tuple[FastnError | None, float | None]:
        """Return the failure of an answered attempt, if it is one, and the wait in seconds that Fastn asks for."""
        response = dict[str, JsonValue]()
        outcome = AttemptOutcome.ANSWERED
        what = f"Fastn answered {answer.status}."
        if answer.status >= 300:
            response = await work_on(len(answer.body), partial(_error_body, answer, attempts.redactor))
            outcome = outcome_of(answer.status, response.get("code"))
        if answer.unreadable is UnreadableBody.BROKEN and answer.status < 300 and method == "GET":
            outcome = AttemptOutcome.UNKNOWN
            what = "Fastn's response was cut off."
        attempts.end(outcome)
        await self.limit.note(answer.status, answer.headers, response)
        if outcome is AttemptOutcome.ANSWERED:
            self._retries.left = min(FULL_BUDGET, self._retries.left + 1)
            return None, None
        wait = retry_after(answer.headers, self._system.now())
        if outcome is not AttemptOutcome.THROTTLED:
            return attempts.lost(what, response), wait
        return attempts.rejected(throttled(response, wait)), wait

    async def _wait_to_retry(self, failure: FastnError, method: str, attempts: Attempts, wait: float | None) -> None:
        """Wait until the next attempt. Raises `failure` if there may be none, or if the wait is too long."""
        seconds = pause(attempts.number, wait, self._system.share())
        in_time = seconds <= MAX_WAIT and seconds < anyio.current_effective_deadline() - anyio.current_time()
        outcome = attempts.last or AttemptOutcome.UNKNOWN
        is_allowed = attempts.number < MAX_ATTEMPTS and may_retry(method, outcome)
        if not is_allowed or not in_time or not self._retries.take(outcome):
            raise failure
        again = f"Trying again in {seconds:.1f} s (attempt {attempts.number + 1} of {MAX_ATTEMPTS})."
        await self._wait(f"{failure.what} {again}", "retry", seconds, attempts)

    async def _wait_for_limit(self, seconds: float, attempts: Attempts) -> None:
        """Wait for a used-up rate limit to reset. Raises `RateLimited` if that takes longer than `MAX_WAIT`."""
        if seconds > MAX_WAIT:
            error = RateLimited(
                "Fastn's rate limit is used up.",
                f"Call again in {seconds:.0f} seconds.",
                certainty=None if attempts.number else NOTHING_SENT,
                facts={"retry_after_seconds": round(seconds, 1)},
            )
            raise attempts.rejected(error)
        why = f"Fastn's rate limit is used up. It opens again in {seconds:.1f} s."
        await self._wait(why, "rate_limit", seconds, attempts)

    async def _wait(self, why: str, cause: str, seconds: float, attempts: Attempts) -> None:
        details: SpanFacts = {"cause": cause, "seconds": round(seconds, 3), "operation": attempts.operation}
        with self._system.span("wait", cause, details):
            await announce_wait(why)
            await self._system.sleep(seconds)


def _check_names(call: Tool[Any], fields: Mapping[str, Mapping[str, str]]) -> None:
    """Raise `NotSent` for a field in `extra` under the account's own name: rules do not recognise it."""
    extra: dict[str, JsonValue] = getattr(call, "extra", None) or {}
    for our, their in fields.get(call.toolset(), {}).items() if extra else ():
        if their != our and any(plain(name) == plain(their) for name in extra if name != our):
            raise InvalidArgument(
                f"extra: {their} is this account's name for {our} (setting fields).",
                f"Give it as an argument or, if there is none, as {our} in extra.",
            )


def _result(call: Operation[R], answer: Answer, attempts: Attempts, results: Redactor, settings: Settings) -> R:
    """Return the result of an answered call. Raises a `FastnError` if it failed or cannot be read."""
    deletes = call.route.method == "DELETE"
    if answer.status >= 300:
        response = _error_body(answer, attempts.redactor)
        if deletes and answer.status == 404 and attempts.was_unknown:
            return call.result({"id": call.target, "deleted": True, "outcome": "gone"})
        if answer.status in (301, 302, 303) and call.effect is not Effect.READ:
            # Servers also answer a completed change with these, to point to its result.
            what = f"Fastn answered with a redirect ({answer.status}), which is never followed."
            raise attempts.lost(what, response)
        key_hint = _key_hint(settings)
        not_found = _not_found(call, settings.base_url)
        is_merged = isinstance(call, Update) and settings.update == "merge"
        error = error_of(answer.status, response, key_hint=key_hint, not_found=not_found, is_merged=is_merged)
        raise attempts.rejected(error)
    if answer.unreadable is not None:
        raise attempts.unreadable(answer.unreadable)
    try:
        body = call.read(unwrap(_succeeded(call, answer, attempts)), answer.headers)
        if results.may_stand_in(answer.body):
            body = results(body)
        if settings.fields and (names := settings.fields.get(call.toolset())):
            from_wire(cast(Call, call), body, names)
        if deletes and not isinstance(body, dict):
            return call.result({"id": call.target, "deleted": True})
        return call.result(body)
    except ValidationError:
        raise attempts.unreadable(UnreadableBody.UNFAMILIAR) from None
    except ValueError:
        raise attempts.unreadable(UnreadableBody.FOREIGN if answer.is_foreign else UnreadableBody.NO_JSON) from None


def _succeeded(call: Operation[Any], answer: Answer, attempts: Attempts) -> JsonValue:
    """Return the body of a 2xx response.

    Raises a `FastnError` if it reports a failure, and `ValueError` if it is not JSON.
    """
    if has_too_many_values(answer.body):
        raise attempts.unreadable(UnreadableBody.TOO_MANY)
    body = _decoded(answer.body)
    has_failed = reports_failure(body, is_read=call.effect is Effect.READ)
    if call.route.method == "DELETE":
        inner = unwrap(body)
        facts = (inner.get("deleted"), inner.get("revoked")) if isinstance(inner, dict) else (inner,)
        has_failed |= any(fact in (False, 0) for fact in facts)  # a flag or a count
    # With this header, the body is what a workflow's own code returned.
    if has_failed and "x-execution-id" not in answer.headers:
        what = f"Fastn answered {answer.status}, but the response says that the call failed."
        raise attempts.lost(what, _error_body(answer, attempts.redactor))
    return body


def _is_redacted(record: FastnObject) -> bool:
    return find_redacted(record.model_dump()) is not None


def _refuse_masks(request: Request) -> None:
    """Raise `NotSent` if an update would store a mask that Fastn shows in place of a secret."""
    masked = find_text(request.body, is_masked)
    if masked is not None:
        field = re.split(r"[.\[]", masked)[0]
        raise NotSent(
            f"Fastn shows a mask in place of the value of {quote(masked)}, and the update would store the mask.",
            f"Give {quote(field)} as well, whole and with the real value, which a person knows. Or use the dashboard.",
            facts={"untrusted": True},
        )


def _key_hint(settings: Settings) -> str:
    other = "bearer" if settings.auth == "header" else "header"
    return (
        f"Check FASTN_API_KEY and FASTN_BASE_URL ({settings.host}), or try FASTN_AUTH={other} instead of"
        f" {settings.auth}."
    )


def _not_found(call: Operation[Any], base_url: str) -> tuple[str, str]:
    """Return what a 404 means, and the next step. Without an id among the arguments, the path is wrong."""
    doctor = "Run fastn-mcp doctor, which finds where this account has it, or correct FASTN_BASE_URL."
    if call.target is not None:
        return no_such(call)
    if any(name.endswith("_id") for name in call.arguments()):
        return f"Fastn has nothing with one of these ids, or no path {call.route.path}.", f"Check the ids. {doctor}"
    return f"Fastn at {base_url} has no path {call.route.path}.", doctor


def _missing_key(missing: NoKey) -> NotSent:
    person = "Only a person can fix this, outside of this chat; never ask for the key here."
    return NotSent(missing.what, f"{person} {missing.next_step.rstrip('.')}. Then restart this server.")


def _decoded(body: bytes) -> JsonValue:
    """Parse strict JSON: no NaN, no lone surrogates, at most 200 levels, exact integers. None for an empty body.

    Raises ValueError if it is anything else.
    """
    # Keys repeat from row to row, values rarely.
    return cast(JsonValue, from_json(body, allow_inf_nan=False, cache_strings="keys")) if body.strip() else None


def _error_body(answer: Answer, redactor: Redactor) -> dict[str, JsonValue]:
    """Return the facts of an error response; only its status if the body is not JSON."""
    try:
        body = None if has_too_many_values(answer.body) else _decoded(answer.body)
    except ValueError:
        body = None
    # Redacted before it is truncated. A part of a long text could hold a part of a secret, so none is taken.
    body = each_text(body, lambda text: text if len(text) <= _MAX_ERROR_TEXT else f"[{len(text)} characters]")
    return facts(answer.status, answer.headers, redact(redactor(body)))


def secrets_of(call: Operation[Any]) -> list[str]:
    """Return the secrets in a call: its secret arguments, and values under field names of secrets."""
    arguments = call.arguments()
    return [*(text for name in call.secrets() for text in texts_in(arguments.get(name))), *secrets_in(arguments)]
