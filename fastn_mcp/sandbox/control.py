"""The sandbox's own paths, for tests that speak HTTP. Pure.

They want no key, so they are for a loopback address; a request that a web page makes is refused.

    GET    /__sandbox/requests     what it was asked: {"requests": [{method, path, query, headers, body, tool}]}
    DELETE /__sandbox/requests     forget it
    GET    /__sandbox/faults       what waits to go wrong
    POST   /__sandbox/faults       {"kind": "status", "status": 503, "method": "GET", "path": "/api/v1/*", "times": 2}
    DELETE /__sandbox/faults       nothing goes wrong any more
    GET    /__sandbox/behaviour    envelope, error shape, paging, rate limit
    POST   /__sandbox/behaviour    {"envelope": "items", "rate_limit": 20}
    POST   /__sandbox/reset        fresh data, an empty log, no faults

What changes something answers like `GET /__sandbox/behaviour`.
"""

from collections.abc import Callable, Mapping

from pydantic import ValidationError
from pydantic_core import to_json

from fastn_mcp.sandbox.behaviour import Behaviour
from fastn_mcp.sandbox.fake import Sandbox
from fastn_mcp.sandbox.faults import FAULT
from fastn_mcp.sandbox.reply import Reply

CONTROL = "/__sandbox/"


def controlled(sandbox: Sandbox, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
    """What a control path answers."""
    if "origin" in headers:
        return _said(403, {"error": "Not for web pages"})
    action = _ACTIONS.get((method, path.removeprefix(CONTROL)))
    if action is None:
        return _said(404, {"error": f"There is no {method} {path}"})
    try:
        return _said(200, action(sandbox, body))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        return _said(422, {"error": [{"field": list(p["loc"]), "problem": p["msg"]} for p in problems]})


def _requests(sandbox: Sandbox, _: bytes) -> object:
    return {"requests": [heard.shown() for heard in sandbox.requests]}


def _forget(sandbox: Sandbox, _: bytes) -> object:
    sandbox.requests.clear()
    return _behaviour(sandbox)


def _faults(sandbox: Sandbox, _: bytes) -> object:
    return {"faults": [fault.model_dump(mode="json") for fault in sandbox.faults.waiting]}


def _add_fault(sandbox: Sandbox, body: bytes) -> object:
    sandbox.faults.add(FAULT.validate_json(body))
    return _behaviour(sandbox)


def _clear_faults(sandbox: Sandbox, _: bytes) -> object:
    sandbox.faults.clear()
    return _behaviour(sandbox)


def _behaviour(sandbox: Sandbox, _: bytes = b"") -> object:
    return sandbox.behaviour.model_dump(mode="json")


def _behave(sandbox: Sandbox, body: bytes) -> object:
    given = Behaviour.model_validate_json(body)
    named = {name: getattr(given, name) for name in given.model_fields_set}
    sandbox.behaviour = sandbox.behaviour.model_copy(update=named)
    return _behaviour(sandbox)


def _reset(sandbox: Sandbox, _: bytes) -> object:
    sandbox.reset()
    return _behaviour(sandbox)


_ACTIONS: dict[tuple[str, str], Callable[[Sandbox, bytes], object]] = {
    ("GET", "requests"): _requests,
    ("DELETE", "requests"): _forget,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("GET", "behaviour"): _behaviour,
    ("POST", "behaviour"): _behave,
    ("POST", "reset"): _reset,
}


def _said(status: int, value: object) -> Reply:
    body = to_json(value)
    return Reply(status, {"content-type": "application/json", "content-length": str(len(body))}, body)
