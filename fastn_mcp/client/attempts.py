"""What has been tried for one call, and so what can be said when it fails. No I/O."""

from collections.abc import Mapping

from pydantic import JsonValue

from fastn_mcp.client.exchange import Unreadable
from fastn_mcp.client.retry import ATTEMPTS, Fate, may_repeat
from fastn_mcp.errors import (
    AppliedUnreadable,
    Failed,
    FastnError,
    NotSent,
    RateLimited,
    Timeout,
    TooLarge,
    UnknownOutcome,
)
from fastn_mcp.operation import Effect
from fastn_mcp.procedures.target import Call, settling_read
from fastn_mcp.tools.workflows import RunWorkflow

_CHECK = "Check the network and FASTN_BASE_URL; fastn-mcp doctor checks each step."


class Attempts:
    """What has been tried for one call, and so what can be said when it fails."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._reads = call.effect is Effect.READ
        self.number = 0
        self.was_unknown = False
        self._under_way = False
        self.last = Fate.UNSENT

    def begin(self) -> None:
        self.number += 1
        self._under_way = True

    def end(self, fate: Fate) -> None:
        self._under_way = False
        self.last = fate
        self.was_unknown |= fate is Fate.UNKNOWN

    def may_repeat(self, method: str) -> bool:
        return self.number < ATTEMPTS and may_repeat(method, self.last)

    def unreachable(self, host: str, reason: str, next_step: str) -> FastnError:
        if self.was_unknown:
            return self.lost(f"Fastn at {host} can no longer be reached: {reason}.", {})
        return NotSent(f"Fastn at {host} cannot be reached: {reason}.", next_step or _CHECK)

    def lost(self, what: str, said: Mapping[str, JsonValue]) -> FastnError:
        detail: dict[str, JsonValue] = {"fastn": dict(said)} if said else {}
        if self._reads:
            return Failed(what, "Call again later.", facts=detail)
        return UnknownOutcome(what, self._look(detail), facts=detail)

    def rejected(self, error: FastnError) -> FastnError:
        """`error`, unless what it says was not done may have been done after all.

        By an attempt before it; or by a run that ends with 422, as Fastn answers where a workflow's own code throws.
        """
        said = error.facts.get("fastn")
        if isinstance(self._call, RunWorkflow) and isinstance(said, dict) and said.get("status") == 422:
            detail: dict[str, JsonValue] = {"fastn": said}
            what = "The workflow's code failed, or its input was refused (422)."
            return Failed(what, self._look(detail), certainty="What it did before that stays done.", facts=detail)
        if self._reads or not self.was_unknown:
            return error
        return self.lost(f"An earlier attempt was lost; then: {error.what}", said if isinstance(said, dict) else {})

    def timed_out(self) -> FastnError:
        if self._under_way or self.was_unknown:
            if self._reads:
                return Timeout("Fastn did not answer in time.", "Call again, or ask for less.")
            detail: dict[str, JsonValue] = {}
            return UnknownOutcome("Fastn did not answer in time.", self._look(detail), facts=detail)
        if self.last is Fate.THROTTLED:
            return RateLimited(
                "Fastn's rate limit is reached (429), and there was no time to wait.", "Call again later."
            )
        return NotSent("The call waited too long for its turn.", "Call again later.")

    def unreadable(self, why: Unreadable) -> FastnError:
        if self._reads:
            kind = TooLarge if why is Unreadable.TOO_LARGE else Failed
            return kind(f"The answer cannot be read: {why.value}.", "Ask for less: a smaller limit, or more filters.")
        detail: dict[str, JsonValue] = {}
        what = f"Fastn did it, but the answer cannot be read: {why.value}."
        return AppliedUnreadable(what, self._look(detail), facts=detail)

    def _look(self, detail: dict[str, JsonValue]) -> str:
        reading = settling_read(self._call)
        if reading is None:
            return "Look in the Fastn dashboard."
        arguments = {k: v for k, v in reading.arguments().items() if k != "limit"}
        detail["settle"] = {"tool": reading.tool_name(), "arguments": arguments}
        return f"Look with {reading.tool_name()}."
