"""What is approved for a while, in a shared ledger."""

import json
from dataclasses import asdict

from fastn_mcp.guard.ledger import Scope
from fastn_mcp.guard.ledger.valkey.server import Server


class Scopes:
    """The scopes of one ledger."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._every = server.key("scopes")
        self._revision = server.key("revision")

    def _scope(self, id_: str) -> str:
        return self._server.key("scope", id_)

    def _covering(self, principal: str, account: str, tool: str, target: str, similar: str) -> str:
        return self._server.key("covering", self._server.digest(principal, account, tool, target, similar))

    async def grant_scope(self, scope: Scope) -> None:
        covering = self._covering(scope.principal, scope.account, scope.tool, scope.target, scope.similar)
        keys = [self._scope(scope.id), covering, self._every, self._revision]
        lives = max(1, round((scope.expires - scope.created) * 1000))
        await self._server.run("scope", keys, scope.id, json.dumps(asdict(scope)), scope.created, scope.expires, lives)

    async def scope_of(
        self, principal: str, account: str, tool: str, target: str, similar: str, now: float
    ) -> Scope | None:
        covering = self._covering(principal, account, tool, target, similar)
        return next(iter(await self._holding(covering, now)), None)

    async def scopes(self, now: float) -> list[Scope]:
        return sorted(await self._holding(self._every, now), key=lambda scope: scope.created)

    async def revoke_scope(self, scope: str) -> bool:
        return await self._server.run("remove", [self._scope(scope), self._revision]) == 1

    async def _holding(self, listed: str, now: float) -> list[Scope]:
        ids: list[str] = await self._server.read("ZRANGE", listed, f"({now!r}", "+inf", "BYSCORE")
        if not ids:
            return []
        found: list[str | None] = await self._server.read("MGET", *map(self._scope, ids))
        return [Scope(**json.loads(text)) for text in found if text is not None]
