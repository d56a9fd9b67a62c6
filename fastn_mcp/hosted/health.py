"""Whether this process is alive, and whether it is ready for requests. Told to anybody, so it tells nothing else."""

from collections.abc import Awaitable, Callable, Mapping

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

ALIVE = "/healthz"
READY = "/readyz"

_PATIENCE = 5.0
_HEADERS = {"Cache-Control": "no-store"}

Check = Callable[[], Awaitable[bool]]


class Health:
    """`needed` has to hold for a request to be answered, by the names that a probe is told; `told` is told alone."""

    def __init__(self, needed: Mapping[str, Check] | None = None, told: Mapping[str, Check] | None = None) -> None:
        self._needed = dict(needed or {})
        self._told = dict(told or {})
        self._leaving = False

    def leave(self) -> None:
        """Ready no more: what comes from now on should go elsewhere."""
        self._leaving = True

    @property
    def leaving(self) -> bool:
        """Whether it is to end."""
        return self._leaving

    def routes(self) -> list[Route]:
        """The two paths of probes."""
        return [Route(ALIVE, self._alive, methods=["GET"]), Route(READY, self._ready, methods=["GET"])]

    async def _alive(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def _ready(self, _: Request) -> JSONResponse:
        if self._leaving:
            return JSONResponse({"status": "leaving"}, 503, _HEADERS)
        checks = self._needed | self._told
        found = {name: "ok" if await _holds(check) else "unreachable" for name, check in checks.items()}
        ready = all(found[name] == "ok" for name in self._needed)
        return JSONResponse({"status": "ready" if ready else "not ready"} | found, 200 if ready else 503, _HEADERS)


async def _holds(check: Check) -> bool:
    try:
        with anyio.fail_after(_PATIENCE):
            return await check()
    except Exception:
        return False
