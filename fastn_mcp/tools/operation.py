"""Base classes of tools that make one API request: routes, evidence, creates and updates."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any, ClassVar, Generic, Self, cast
from urllib.parse import quote, unquote

from pydantic import JsonValue, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import override

from fastn_mcp.errors import first_few
from fastn_mcp.records.rows import FastnObject, Row, text, word
from fastn_mcp.tools.slugs import same_name
from fastn_mcp.tools.tool import CONTROL, KEEP_NULLS, Effect, Result, Tool

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@+=-]{0,255}")
_PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True)
class ShapeEvidence:
    """Evidence for the request shape of an operation."""

    kind: str
    source: str

    def __str__(self) -> str:
        return self.kind


INFERRED = partial(ShapeEvidence, "inferred")
"""Derived from other facts, not documented."""

DOCUMENTED = partial(ShapeEvidence, "documented")
"""Documented by Fastn."""


def OBSERVED(day: str, host: str) -> ShapeEvidence:
    """Seen in a response of the live API, on `day` (ISO 8601) at `host`."""
    return ShapeEvidence("observed", f"{day} {host}")


@lru_cache(maxsize=1024)
def plain(name: str) -> str:
    """Normalize a name of a field: `customer_id`, `customerId` and `customer-id` are equal."""
    return name.replace("_", "").replace("-", "").casefold()


class RefusedValue(ValueError):
    """A value that may not be sent. Names the argument, never the value."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path template, such as `DELETE /api/v1/workflows/{workflow_id}`."""

    method: str
    path: str
    parameters: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(_PARAMETER.findall(self.path)))

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def fill(self, values: Mapping[str, object]) -> str:
        """Return the path with each value as exactly one encoded segment. Raises `RefusedValue` for an invalid one.

        Values enter a path only here. Quoting alone is not enough: `..` survives it, and HTTP libraries then leave
        the path.
        """
        path = _PARAMETER.sub(lambda found: _segment(found[1], values[found[1]]), self.path)
        if self.match(path) is None:
            raise RefusedValue(self.path, "the filled path does not match its template")
        return path

    def match(self, path: str) -> dict[str, str] | None:
        """Return the decoded parameters of `path`; None if it does not match this route."""
        segments = _pattern(self.path).fullmatch(path)
        return None if segments is None else {name: unquote(value) for name, value in segments.groupdict().items()}


@lru_cache(maxsize=1024)
def _pattern(template: str) -> re.Pattern[str]:
    parts = enumerate(_PARAMETER.split(template))
    return re.compile("".join(f"(?P<{part}>[^/?#]+)" if number % 2 else re.escape(part) for number, part in parts))


NOT_AN_ID = "takes an id, and this value cannot be one; find returns the id of a name"
"""What is said of a value that cannot be an id."""


def _segment(argument: str, value: object) -> str:
    if not isinstance(value, str) or _SEGMENT.fullmatch(value) is None:
        raise RefusedValue(argument, NOT_AN_ID)
    return quote(value, safe="")


GET, POST, PUT, DELETE = (partial(Route, method) for method in ("GET", "POST", "PUT", "DELETE"))


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request before any I/O. `path` is encoded; query and body are JSON values; names are Fastn's."""

    method: str
    path: str
    query: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    body: dict[str, JsonValue] | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    template: str = field(default="", compare=False)
    """The path of the route, with parameter names instead of ids."""


UNKNOWN = FastnObject()
"""A target that could not be read. Every rule treats it as the strictest case."""

HARMLESS_EXTRA = frozenset({"description", "label", "labels", "note", "notes", "tag", "tags"})
"""Fields of `extra` that do not raise the effect of a write. Any other may publish something or grant access."""


def _is_harmless(extra: object, clears: frozenset[str]) -> bool:
    """Return whether `extra` contains only prose and keywords, or nulls for them or for fields in `clears`."""
    return isinstance(extra, dict) and all(
        name in HARMLESS_EXTRA | clears if value is None else name in HARMLESS_EXTRA and _is_prose(value)
        for name, value in cast("dict[str, object]", extra).items()
    )


def _is_prose(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return all(isinstance(item, str) for item in items)


class Operation(Tool[Result], Generic[Result]):
    """One API operation. Subclasses declare `route`, `effect` and `evidence`, and override methods for exceptions."""

    _declares: ClassVar[tuple[str, ...]] = ("route", "effect", "evidence")

    route: ClassVar[Route]
    evidence: ClassVar[ShapeEvidence]
    raises_to: ClassVar[tuple[Effect, ...]] = ()
    """Effects that the arguments or the target can raise a call to."""
    extra_effect: ClassVar[Effect] = Effect.EXTERNAL
    """Effect that fields of `extra` raise a call to, unless they are known to be harmless."""
    nested: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Documented fields of the objects in a list, by argument. Any other may have an unknown effect."""
    clears: ClassVar[frozenset[str]] = frozenset()
    """Documented fields, by Fastn's names, that a null in `extra` clears without a further effect."""
    defaults: ClassVar[Mapping[str, str]] = {}
    """Values that Fastn uses for arguments that are not given, which rules that ask or refuse compare too."""

    @property
    @override
    def effective(self) -> Effect:
        return self.effect.raised_to(self.extra_effect) if self.is_undocumented else self.effect

    @property
    def is_undocumented(self) -> bool:
        """Whether it has fields that are neither documented nor known to be harmless."""
        extra: object = vars(self).get("extra")
        lists = ((fields, vars(self).get(name) or ()) for name, fields in self.nested.items())
        is_known = all(row.keys() <= fields for fields, rows in lists for row in rows)
        return not is_known or (extra is not None and not _is_harmless(extra, self.clears))

    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:  # noqa: ARG002 - subclasses use both
        """Return the effect on `target`, which `dependents` resources use: `effective` or stricter.

        `target` is None if there is none, `UNKNOWN` if it could not be read. `dependents` is None if it is not known.
        """
        return self.effective

    @property
    def needs_person(self) -> str:
        """Why this call needs a person's approval in every mode; empty if the policy decides.

        A plan covers such a call only if it lists its exact arguments.
        """
        return ""

    @property
    def unresolved(self) -> frozenset[str]:
        """Arguments that Fastn derives from others, so that a rule cannot compare them."""
        return frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not hasattr(cls, "route"):
            return
        unknown = set(cls.route.parameters) - cls.model_fields.keys()
        if unknown:
            raise TypeError(f"{cls.__name__}: its path names {sorted(unknown)}, which are not fields")
        if cls.route.method in ("GET", "DELETE"):
            cls._control_characters = CONTROL  # a query has no lines

    @property
    @override
    def target(self) -> str | None:
        parameters = type(self).route.parameters
        return cast(str, getattr(self, parameters[-1])) if parameters else None

    @classmethod
    @override
    def toolset(cls) -> str:
        """Return the resource in the path: `api_keys` for `/api/v1/api-keys/{api_key_id}`."""
        return cls.route.path.split("/")[3].replace("-", "_")

    @classmethod
    @override
    def idempotent(cls) -> bool:
        return cls.route.method != "POST"

    @classmethod
    @override
    def destructive(cls) -> bool:
        return super().destructive() or (cls.effect is Effect.WRITE and cls.route.method == "PUT")

    def request(self, route: Route | None = None) -> Request:
        """Return the call as an HTTP request. Raises `RefusedValue` for an invalid id or a field in `extra` twice.

        Path parameters fill the path. The rest, with `extra`, is the query of a GET or DELETE, else the JSON body.
        `route` replaces the operation's own, for accounts with other paths.
        """
        route = route or type(self).route
        fields = self.arguments()
        path = route.path
        if "{" in path:
            path = route.fill({name: fields.pop(name, None) for name in route.parameters})
        extra = fields.pop("extra", None)
        fields = {self.wire(name): value for name, value in fields.items()}
        if isinstance(extra, dict):
            known = {self.wire(name) for name in type(self).model_fields.keys() - self.ours()}
            alike = set(map(plain, known))
            # A null clears a field, which an omitted argument cannot express. Servers may ignore the case of a name.
            taken = sorted(
                name
                for name, value in extra.items()
                if plain(name) in alike and (name not in known or value is not None)
            )
            if taken:
                named = ", ".join(first_few(taken))
                raise RefusedValue("extra", f"{named} has an argument of its own; give it there")
            fields = extra | fields
        if route.method in ("GET", "DELETE"):
            return Request(route.method, path, query=fields, template=route.path)
        return Request(route.method, path, body=fields, template=route.path)

    @classmethod
    @cache
    def wire(cls, name: str) -> str:
        """Return Fastn's name of an argument."""
        return cls.model_fields[name].serialization_alias or to_camel(name)

    @classmethod
    def received(cls, request: Request, route: Route | None = None) -> Self | None:
        """Return the call that a request makes: the inverse of `request()`. None if it is of another route.

        Raises pydantic's `ValidationError` if the request is of this route but not a valid call.
        """
        route = route or cls.route
        parameters = route.match(request.path) if request.method == route.method else None
        if parameters is None:
            return None
        names = {cls.wire(name): name for name in cls.model_fields if name not in cls.ours()}
        values: dict[str, Any] = dict(parameters)
        extra: dict[str, JsonValue] = {}
        for wire, value in {**request.query, **(request.body or {})}.items():
            # A null clears a field, which only `extra` can express.
            if wire in names and wire != "extra" and (value is not None or "extra" not in cls.model_fields):
                values[names[wire]] = value
            else:
                extra[wire] = value
        if extra and "extra" in cls.model_fields:
            values["extra"] = extra
        else:
            values |= extra
        # Numbers in a query arrive as text.
        return cls.model_validate(values, strict=request.method not in ("GET", "DELETE"), context=KEEP_NULLS)

    def read(self, body: JsonValue, headers: Mapping[str, str]) -> JsonValue:  # noqa: ARG002 - subclasses use both
        """Return the unwrapped body, with facts from the lower-cased headers."""
        return body

    def result(self, body: JsonValue) -> Result:
        """Return the unwrapped body as the result type of this operation."""
        fields = body if isinstance(body, dict) else {"value": body}
        if body is None:
            fields = {}
        return cast(Result, type(self).returns.model_validate(fields))


Call = Operation[Any]
Send = Callable[[Call], Awaitable[FastnObject]]

_WRAPPERS = ("data", "result", "results", "item", "items")


def unwrap(body: JsonValue) -> JsonValue:
    """Return the resource or the list in a response. Fastn was seen to wrap it as {data}, {data: {data}} or not."""
    for _ in range(3):
        if not isinstance(body, dict) or "id" in body:
            return body
        inner = next((body[name] for name in _WRAPPERS if isinstance(body.get(name), dict)), None)
        if inner is None:
            return body
        body = inner
    return body


_RECORD_IDS = ("id", "executionId", "sessionId", "sessionID", "conversationId", "threadId")
_FAILURES = frozenset({"error", "errored", "fail", "failed", "failure"})


def reports_failure(body: JsonValue, *, is_read: bool) -> bool:
    """Return whether the body of a 2xx response says that the call failed, in an envelope or in place of a record.

    A record may have an `error` of its own, such as a run's. A change that reports an error beside data failed too.
    """
    if not isinstance(body, dict):
        return False
    is_record = bool(text(body, *_RECORD_IDS))
    if is_record and is_read:
        return False
    if any(str(body.get(name)).casefold() == "false" for name in ("success", "ok")):
        return True
    inner = next((body[name] for name in _WRAPPERS if isinstance(body.get(name), (dict, list))), None)
    is_failed = word(body, "status") in _FAILURES and (not is_read or "message" in body)
    if (is_failed or body.get("error") or body.get("errors")) and not is_record and not (is_read and inner):
        return True
    # The id beside `data` may be the id of the request. A run's `data` is what the workflow's own code returned.
    is_request = not is_read and "id" in body and not text(body, *_RECORD_IDS[1:])
    is_envelope = is_request and isinstance(body.get("data"), dict)
    return (is_envelope or not is_record) and reports_failure(inner, is_read=is_read)


# Set by Fastn; a merged update does not send them back.
_SET_BY_FASTN = frozenset({"id", "createdAt", "createdBy", "updatedAt", "updatedBy"})


class Update(Operation[Result], Generic[Result]):
    """An update of the given fields."""

    @model_validator(mode="after")
    def _names_a_change(self) -> Self:
        changed = {name for name, value in self.arguments().items() if name != "extra" or value}
        if not changed - {*type(self).route.parameters, "version"}:
            raise ValueError("no field to change is given")
        return self

    @staticmethod
    def merged(current: dict[str, JsonValue], changes: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the whole resource with the changes, as Fastn's `PUT` may drop omitted fields."""
        return {name: value for name, value in current.items() if name not in _SET_BY_FASTN} | changes


class Create(Operation[Result], Generic[Result]):
    """A create, evaluated as an update if it may overwrite something."""

    @property
    @override
    def unresolved(self) -> frozenset[str]:
        """The slug, if it takes one and none is given: Fastn makes it of the name."""
        return frozenset({"slug"} if vars(self).get("slug", "") is None else ())

    @property
    def beside(self) -> Mapping[str, str | None]:
        """Filters of the list in which everything stands that this may overwrite."""
        return {}

    @property
    def looked_for(self) -> Mapping[str, str]:
        """Texts by which Fastn may find what this may overwrite, by the field of a row, the surest first."""
        name = str(vars(self).get("name") or "")
        slug = str(vars(self).get("slug") or name)
        return {field: each for field, each in (("slug", slug), ("name", name)) if each.strip()}

    def may_overwrite(self, row: Row) -> bool | None:
        """Return whether this may overwrite `row`; None if that is not known."""
        own = _names_of(vars(self))
        existing = _names_of(row)
        answers = [same_name(name, other) for name in own for other in existing]
        if True in answers:
            return True
        return None if None in answers or len(existing) < len(_NAMES) else False


_NAMES = ("slug", "name")
"""Fields by which Fastn may take a new record for an existing one."""


def _names_of(fields: Mapping[str, Any]) -> list[str]:
    names = map(fields.get, _NAMES)
    return [name for name in names if isinstance(name, str) and name.strip()]
