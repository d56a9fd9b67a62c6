"""The tool `find`: read every kind within bounds, rank the names, and suggest the next call."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.directory import LISTS, Entry
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.find.query import kinds, parts
from fastn_mcp.procedures.find.ranking import EXACT, Ranking
from fastn_mcp.procedures.find.search_data import EXECUTION, SearchData, connection_titled, look_up, names_execution
from fastn_mcp.tools.tool import Effect, FastnObject

Kind = Literal["customer", "connector", "connection", "workflow", "trigger", "user", "role", "api_key", "secret"]

NEXT: dict[str, tuple[str, ...]] = {
    "customer": ("get_customer(customer_id)", "list_connections(customer_id)", "list_executions(customer_id)"),
    "connector": ("get_connector(connector_id)", "list_connections(connector_id)"),
    "connection": ("list_connections(customer_id)", "list_executions(customer_id)"),
    "workflow": ("diagnose_workflow(workflow_id)", "get_workflow(workflow_id)", "run_workflow(workflow_id)"),
    "trigger": ("get_trigger(trigger_id)", "update_trigger(trigger_id)"),
    "user": ("list_users(search)",),
    "role": ("list_roles()",),
    "api_key": ("list_api_keys()", "revoke_api_key(api_key_id)"),
    "secret": ("list_secrets(customer_id)", "create_secret(name)"),
    EXECUTION: ("get_execution(execution_id)", "diagnose_workflow(workflow_id)"),
}
"""The calls that make sense for a kind, each with the argument that it takes from the row."""

_LONGEST_QUERY = 500
_LONGEST = 100
"""Characters of a name in a result."""


def _askable(query: str) -> str:
    if len(query) > _LONGEST_QUERY:
        raise ValueError(f"at most {_LONGEST_QUERY} characters")
    if not any(map(str.isalnum, query)):
        raise ValueError("holds no letter or digit to look for")
    return query


class Found(FastnObject):
    """What was found, best first, and what was not looked through."""


class Find(Procedure[Found]):
    """Find anything by name, slug, id or part, in a sentence or misspelt. Start here."""

    effect = Effect.READ

    query: Annotated[str, Field(description="As: the acme hubspot sync."), AfterValidator(_askable)]
    kind: Annotated[Kind | None, Field(description="Only these.")] = None
    limit: Annotated[int, Field(ge=1, le=20, description="1-20, default 5.")] = 5

    async def run(self, means: ProcedureContext) -> Found:
        single, failures = await look_up(self.query, self.kind, means.read)
        if single is not None:
            return await _one(single, means)
        if names_execution(self.query):
            return _no_execution(failures)
        wanted = (self.kind,) if self.kind else tuple(LISTS)
        data = SearchData(means, wanted)
        await data.read()
        ranking = data.rank(self.query)
        if data.incomplete:
            await data.add_by_search(ranking.words)
            await data.add_by_owner(data.rank(self.query, ("customer", "connector")))
            ranking = data.rank(self.query)
        return self._answer(data, ranking)

    def _answer(self, data: SearchData, ranking: Ranking) -> Found:
        shown = ranking.hits[: self.limit]
        rows = [_row(data.things[hit.place], hit.score, data.customers) for hit in shown]
        answer: dict[str, JsonValue] = {"found": cast(JsonValue, rows)}
        if len(ranking.hits) > len(shown):
            answer["more"] = len(ranking.hits) - len(shown)
        if ranking.ambiguous > 1:
            answer["ambiguous"] = f"The first {ranking.ambiguous} fit about equally well: ask which one is meant."
        if rows and ranking.lacking:
            answer["first_lacks"] = list(ranking.lacking)
        if not rows:
            answer["did_you_mean"] = list(map(_cut, ranking.near))
        kinds_shown = [cast(str, row["kind"]) for row in rows] or self._hinted()
        return Found.model_validate(answer | data.seen() | _next(kinds_shown))

    def _hinted(self) -> list[str]:
        """The kinds that a question names that found nothing."""
        said = (word for part in parts(self.query) for word in part)
        return [self.kind] if self.kind else sorted({kind for word in said for kind in kinds(word)})


async def _one(found: Entry, means: ProcedureContext) -> Found:
    """The answer where an id said it all."""
    customers = await means.directory.names("customer", filter(None, [found.customer]), means.read)
    if found.kind == "connection":
        of = found.connector or ""
        known = {of: found.connector_name} if found.connector_name else {}
        known = known or await means.directory.names("connector", filter(None, [of]), means.read)
        found = connection_titled(found, customers, known.get(of, of))
    row = _row(found, EXACT, customers)
    return Found.model_validate({"found": [row], "searched": [found.kind]} | _next([found.kind]))


def _no_execution(failures: Mapping[str, FastnError]) -> Found:
    answer: dict[str, Any] = {"found": [], "did_you_mean": [], "searched": [] if failures else [EXECUTION]}
    if failures:
        answer["not_searched"] = dict[str, JsonValue]((kind, error.outcome) for kind, error in failures.items())
    return Found.model_validate(answer | {"next": {EXECUTION: ["list_executions(workflow_id, since)"]}})


def _row(found: Entry, score: int, customers: Mapping[str, str]) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {"kind": found.kind, "id": found.id or None, "name": _cut(found.name)}
    if found.slug and parts(found.slug) != parts(found.name):
        row["slug"] = _cut(found.slug)
    if found.email and found.email != found.name:
        row["email"] = _cut(found.email)
    if found.status:
        row["status"] = found.status
    if found.customer:
        # A connection has it in its own name.
        whose = None if found.kind == "connection" else customers.get(found.customer)
        row["customer"] = {"id": found.customer, "name": _cut(whose)} if whose else {"id": found.customer}
    if found.workflow:
        row["workflow_id"] = found.workflow
    return row | {"score": score}


def _next(kinds_shown: Iterable[str]) -> dict[str, JsonValue]:
    steps: dict[str, JsonValue] = {kind: list(NEXT[kind]) for kind in dict.fromkeys(kinds_shown)}
    return {"next": steps} if steps else {}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
