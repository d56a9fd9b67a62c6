"""Redact secrets and sanitize unsafe text: every rule, in one place. Imports nothing of this package.

`redact` removes secrets recognized by name or shape, `Redactor` removes known secrets, and `sanitize` escapes invisible
characters. `safe` redacts and sanitizes; it is applied to every result, error, record and approval request.
All are idempotent.
"""

import re
import unicodedata
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from json import dumps
from typing import NamedTuple, TypeVar, cast
from urllib import parse

from pydantic import JsonValue
from pydantic_core import from_json, to_json

REDACTED = "[hidden-by-fastn-mcp]"
"""Replacement for a secret. Unlikely to occur by chance, as `[hidden]` does in CSS selectors."""

# --- names -------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"passw|passphrase|passcode|secret|token|credential|authori[sz]ation|bearer|cookie|signature|jwt"
    r"|connection[-_ .]?string|(api|private|access|signing|encryption|shared|client|master|hmac)[-_ .]?key"
    r"|(raw|plain[-_ .]?text)[-_ .]?key|key[-_ .]?value$"
    r"|(^|[-_ .])(pwd|pin|otp|pass|dsn|sig)$|(?-i:(?<=[a-z])(Pwd|Pin|Otp|Pass|Dsn)$)",
    re.IGNORECASE,
)
_ABOUT_A_SECRET = re.compile(
    r"([-_](id|ids|name|type|at|count|url|status|expiry)|I[dD]s?|Name|Type|At|Count|Url|URL|Status|Expiry)$"
)
_NAME_KEYS = frozenset({"name", "key", "id", "field", "header", "label", "param", "parameter", "variable", "property"})
_VALUE_KEYS = frozenset({"value", "values", "val", "default", "defaultvalue", "currentvalue"})
"""Keys of pairs such as {"name": "apiKey", "value": "..."}: the keys that name the secret, and the keys that hold
it."""

# Fields of API keys and secrets that are safe to show. A text in any other field is redacted.
_SAFE_FIELDS = frozenset({
    "id", "name", "type", "kind", "mode", "status", "state", "environment", "env", "scope", "scopes", "permission",
    "permissions", "role", "customer", "customers", "customerid", "customerids", "endorgid", "orgid", "spaceid",
    "tenantid", "workspaceid", "createdat", "createdby", "updatedat", "updatedby", "expiresat", "expires", "expiry",
    "lastused", "lastusedat", "revokedat", "deletedat", "rotatedat", "allowedips", "description", "version",
    "enabled", "active", "deleted", "outcome", "tags", "slug", "matrix", "resourcescope", "keyid", "apikeyid",
})  # fmt: skip # words, several on a line
_PREFIX_FIELDS = frozenset({"keyprefix", "prefix", "start"})
_SUFFIX_FIELDS = frozenset({"last4", "lastfour", "keysuffix", "suffix", "end"})
_MASKED_FIELDS = frozenset({"maskedkey", "masked", "keyhint", "hint", "redactedkey", "partialkey", "obfuscatedkey"})
_FRAGMENT_FIELDS = _PREFIX_FIELDS | _SUFFIX_FIELDS | _MASKED_FIELDS
"""Fields with a part of a key, by which people identify it."""

_SCHEMA_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_SCHEMA_WORDS = frozenset({
    "type", "title", "description", "format", "required", "properties", "items", "additionalProperties",
    "minLength", "maxLength", "minimum", "maximum", "pattern", "writeOnly", "readOnly", "nullable", "deprecated",
    "anyOf", "oneOf", "allOf", "$ref",
})  # fmt: skip # words, several on a line
"""JSON Schema keywords, which describe a field and hold no value of it."""


class _Name(NamedTuple):
    safe: str
    plain: str
    secret: bool
    many: bool


def is_secret_name(name: str) -> bool:
    """Return whether a value under this name is secret: `clientSecret` is, `secretId` is not."""
    return _name(name).secret


def _name(name: str) -> _Name:
    return _known_name(name) if len(name) <= 128 else _read_name(name)


def _read_name(name: str) -> _Name:
    letters = _letters(name).strip()
    secret = _SECRET_NAME.search(letters) is not None and _ABOUT_A_SECRET.search(letters) is None
    plain = re.sub(r"[-_ .]", "", letters).casefold()
    return _Name(redact_text(name), plain, secret, plain.endswith("s") and not plain.endswith("pass"))


_known_name = lru_cache(4096)(_read_name)  # each row of a list repeats the same few names


def may_hold_new_key(name: str, value: JsonValue) -> bool:
    """Return whether a field of a new API key may hold its secret: its name is undocumented, or its value unsafe."""
    is_known = (
        _name(name).plain in _SAFE_FIELDS | _FRAGMENT_FIELDS or value is None or isinstance(value, (bool, int, float))
    )
    return value != "" and not (is_known and _row_value(_name(name), value) == value)


# --- texts -------------------------------------------------------------------------------------------------------

_TOKENS = (
    r"(?P<authority>://)"
    r"|(?P<fastn_key>f(?<!\wf)sk_(?=(?:test|live)_[\w-]{6}|(?!test_|live_)[\w-]{6}))"
    r"|(?P<jwt>e(?<![\w-]e)yJ)"
    r"|(?P<private_key>-----BEGIN\ )"
    r"|(?P<bearer>[Bb](?<!\w.)(?i:earer)\s)"
    r"|(?P<basic>[Bb](?<!\w.)(?i:asic)\s)"
)
_NAMES = (
    r"""(?P<pair>(?P<quote>\\{0,16}["'])(?P<quoted>[^"'\\\n]{2,64})(?P=quote)(?=[\s:]))"""
    r"|(?P<parameter>[?&#](?P<in_query>[\w%.-]{2,64})=)"
    r"|(?P<assignment>(?P<assigned>[\w%.-](?<![\w%.-].)[\w%.-]{1,63})=)"
    r"|(?P<header>(?P<field>[A-Za-z](?<![\w-].)[\w-]{2,63})\s?:)"
)
_LOOKS_BEHIND = re.compile(r"\(\?<!(?:\[.*?\]|\\w).\)")
_NAME = re.compile(_NAMES, re.DOTALL)
_MARK = re.compile(f"{_TOKENS}|{_NAMES}", re.DOTALL)
"""What stands before a secret, of a bounded length. Its group is its kind, and `_VALUES` matches what follows.

Each alternative begins with a character and looks behind it afterwards: at most positions, that character decides.
"""


@lru_cache(2)
def _after_secret(mark: "re.Pattern[str]") -> "re.Pattern[str]":
    """Return the pattern of marks right after a secret, which ends any word. Compiled once it is needed."""
    return re.compile(_LOOKS_BEHIND.sub("", mark.pattern), re.DOTALL)


_MARKED_NAMES = {"pair": "quoted", "parameter": "in_query", "assignment": "assigned", "header": "field"}
"""The kinds of marks that are names, and the group with the name."""

_ORDINARY = re.compile(
    r"(?:[\x00-\x20!$()*+,/;<=>@\[\]^`{|}~\x7f]++"
    r"|(?:[A-Za-dg-z0-9_%.]++|[fe-](?!sk_|yJ|----BEGIN\ )|[^\x00-\x7f\s]++)++"
    r"(?!fsk_|eyJ|-----BEGIN\ |(?<=[\w%.-]{2})=|(?<=[\w-]{3})\s?:)(?i:(?<!bearer)(?<!basic))"
    r"|:(?!//)"
    r"|[\"'](?![^\"'\\\n]{2,64}\\{0,16}[\"'][\s:])"
    r"|\\(?!\\{0,15}[\"'])"
    r"|[?&#](?![\w%.-]{2,64}=)"
    r"|[^\S\x00-\x7f])*+"
)
"""Text in which no mark begins: most of any. It is passed by whole words, and not tried letter by letter."""
_WORD = re.compile(r"[\w%.-]{1,4096}")
_ASSIGNED = re.compile(r"(?P<value>[^\s&;,\"'<>(){}\\]+)")
_VALUES = {
    "authority": re.compile(r"[^\s/?#\"'<>\\]+"),
    "fastn_key": re.compile(r"[\w-]+"),
    "jwt": re.compile(r"[\w-]{8,}\.[\w.-]+"),
    "private_key": re.compile(r"[A-Z ]*PRIVATE KEY-----"),
    "bearer": re.compile(r"\s*+(?!(?i:auth\w*|tokens?|credentials?|scheme|header)\b)(?P<value>[\w.~+/=-]{6,})"),
    "basic": re.compile(r"\s*+(?P<value>[\w.~+/=-]{6,})"),
    "pair": re.compile(
        r"""\s*+:\s*+(?P<value>\\{1,16}"(?:[^\\]++|\\(?!\\{0,15}"))*+(?:\\{1,16}"|$)"""
        r"""|"(?:[^"\\]++|\\.)*+"?|'(?:[^'\\]++|\\.)*+'?|-?\d[\d.]*)""",
        re.DOTALL,
    ),
    "parameter": _ASSIGNED,
    "assignment": _ASSIGNED,
    "header": re.compile(r"[ \t]*+(?:(?i:bearer|basic)[ \t]++(?=[^\s\"'])|(?=[^\s\"'{\[]))(?P<value>[^\r\n\"']+)"),
}
"""What follows each kind of mark."""

_RESTS = {"parameter": _ASSIGNED, "assignment": _ASSIGNED, "header": re.compile(r"[^\r\n\"']+")}
"""What else belongs to a value whose end another secret has moved, by the kind of its mark."""

_PRIVATE_KEY_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
_WINDOW = 65_536
"""Characters that are searched at once. One search holds the interpreter's lock, and with it every thread."""

_AFTER_NAME = 2
"""Characters of a mark that can follow its word: a blank and a colon."""

_LONGEST_MARK = 256
"""More characters than the longest mark has, of which one could stand across the end of a window."""

_IN_A_QUERY = frozenset({"key", "sig", "auth"})
_ACTIONS = frozenset(
    {"*", "admin", "create", "delete", "execute", "get", "invite", "list", "manage", "read", "remove", "replay"}
    | {"revoke", "rotate", "share", "update", "use", "view", "write"}
)
"""Last parts of permissions such as `api-keys:create`, which are not redacted: approvers read them whole."""
_MAX_JSON_DEPTH = 4
"""Maximum levels of JSON nested in texts that are searched. Deeper levels are redacted."""

_MAX_JSON_VALUES = 250_000
"""Maximum number of commas in such a text. A longer one is redacted: parsing it would hold up every thread."""


def redact_text(text: str) -> str:
    """Redact secrets in a text, recognized by their shape or by the name before them."""
    return _text(text, 0)


_TIMES = re.compile(r"(?:[\d-]{10}T[\d:.]+Z?(?: \([\w ]+\))?(?:\n|$))+", re.ASCII)


_PLAIN_TYPES = {str, int, float, bool, type(None)}


def _are_ordinary(cells: Sequence[JsonValue]) -> bool:
    """Return whether no rule applies to any of these values."""
    types = set(map(type, cells))
    texts = cast("Sequence[str]", cells) if types == {str} else [cell for cell in cells if isinstance(cell, str)]
    return types <= _PLAIN_TYPES and _is_ordinary("\n".join(texts))


def _is_ordinary(text: str) -> bool:
    """Return whether no rule applies to a text: it has no mark that one begins with, or it is a time."""
    if text.isalnum():
        return True
    if (":" in text or "=" in text or "{" in text or "[" in text or '"' in text) and _TIMES.fullmatch(text) is None:
        return False
    if "fsk_" in text or "eyJ" in text or "-----BEGIN" in text:
        return False
    lowered = text.lower()
    return "bearer" not in lowered and "basic" not in lowered


def _text(text: str, level: int) -> str:
    if _is_ordinary(text):
        return text
    is_large = len(text) > _MAX_JSON_VALUES and text.count(",") > _MAX_JSON_VALUES
    if text[:64].lstrip()[:1] in ("{", "[", '"'):
        if is_large:
            return REDACTED
        held = _json(text)
        if held is not None:
            return _json_text(text, held, level)
    marks = (("{[", "}]"), ("{", "}")) if not is_large and ("{" in text or "[" in text) else ()
    for first, last in marks:  # JSON in a text, perhaps escaped as a JSON string
        found = map(text.find, first)
        start = min((at for at in found if at >= 0), default=-1)
        end = max(map(text.rfind, last)) + 1
        if 0 <= start < end and (redacted := _held_json(text[start:end], level)) != text[start:end]:
            return _without_secrets(text[:start]) + redacted + _without_secrets(text[end:])
    return _without_secrets(text)


def _without_secrets(text: str) -> str:
    """Redact secrets in a text, in one walk from its beginning to its end."""
    parts: list[str] = []
    copied = position = 0
    while (mark := _next_mark(text, position, is_after_secret=0 < position == copied)) is not None:
        mark, secret = _secret_at(mark, is_after_secret=0 < mark.start() == copied)
        kind = cast(str, mark.lastgroup)
        if secret is not None:
            start = min(mark.end(), secret.start)
            lead = text[mark.start() : start]
            parts.append(text[copied : mark.start()])
            parts.append(_without_secrets(lead) if kind in _MARKED_NAMES else lead)
            parts.append(text[start : secret.start])
            parts.append(secret.replacement)
            copied = position = _end_of_secrets(text, secret, kind)
        elif kind in ("parameter", "assignment", "header") and not _has_token(mark[0]):
            position = mark.end() - 1  # no mark begins within such a name
        else:
            position = mark.start() + 1
    return "".join(parts) + text[copied:] if parts else text


def _next_mark(text: str, position: int, *, is_after_secret: bool) -> "re.Match[str] | None":
    if is_after_secret and (mark := _after_secret(_MARK).match(text, position)) is not None:
        return mark
    while position < len(text):
        limit = position + _WINDOW
        passed = cast("re.Match[str]", _ORDINARY.match(text, position, limit)).end()
        position = passed if limit >= len(text) else min(passed, limit - _LONGEST_MARK)
        if (mark := _MARK.match(text, position)) is not None:
            return mark
        word = _WORD.match(text, position)
        if word is not None and (mark := _MARK.search(text, position, word.end() + _AFTER_NAME)) is not None:
            return mark
        position = position + 1 if word is None else word.end()
    return None


class _Secret(NamedTuple):
    """Where a secret stands in a text, and what takes its place."""

    start: int
    end: int
    replacement: str = REDACTED


def _end_of_secrets(text: str, secret: _Secret, kind: str) -> int:
    """Return where a secret ends, or secrets that begin within it: a header's line may begin a private key."""
    position = secret.start
    end = secret.end
    ends = dict[str, int]()
    while (mark := _next_mark(text, position, is_after_secret=False)) is not None and mark.start() < end:
        position = mark.start() + 1
        inner_kind = cast(str, mark.lastgroup)
        if inner_kind != "pair" and mark.start() < ends.get(inner_kind, 0):
            continue  # it ends where the one around it does
        _, inner = _secret_at(mark, is_after_secret=False)
        if inner is not None:
            ends[inner_kind] = inner.end
        if inner is not None and inner.end > end:
            rest = _RESTS[kind].match(text, inner.end) if kind in _RESTS else None
            end = inner.end if rest is None else rest.end()
    return end


def _secret_at(mark: "re.Match[str]", *, is_after_secret: bool) -> "tuple[re.Match[str], _Secret | None]":
    """Return the mark of a secret with the secret, or the mark with None.

    The beginning of a token can also begin a name, as in `eyJ-token: …`.
    """
    if mark.lastgroup in _MARKED_NAMES:
        return mark, _named_secret(mark)
    if (token := _token_at(mark)) is not None:
        return mark, token
    name = (_after_secret(_NAME) if is_after_secret else _NAME).match(mark.string, mark.start())
    return (mark, None) if name is None else (name, _named_secret(name))


def _token_at(mark: "re.Match[str]") -> _Secret | None:
    """Return the secret that is recognized by its shape; None if it is none."""
    kind = cast(str, mark.lastgroup)
    text = mark.string
    value = _VALUES[kind].match(text, mark.end())
    if value is None or (kind == "basic" and not _is_basic(value["value"])):
        return None
    if kind == "authority":
        end = text.rfind("@", value.start() + 1, value.end())
        return None if end < 0 else _Secret(value.start(), end)
    if kind == "private_key":
        last = _PRIVATE_KEY_END.search(text, value.end())
        return _Secret(mark.start(), len(text) if last is None else last.end())
    return _Secret(*value.span("value")) if kind in ("basic", "bearer") else _Secret(mark.start(), value.end())


def _named_secret(mark: "re.Match[str]") -> _Secret | None:
    """Return the value after a name; None if it is not secret."""
    kind = cast(str, mark.lastgroup)
    if not _is_secret_mark(kind, mark[_MARKED_NAMES[kind]]):
        return None
    value = _VALUES[kind].match(mark.string, mark.end())
    if value is None or value["value"].strip("\\\"'") == REDACTED:
        return None
    if kind == "header" and value.start("value") == mark.end() and value["value"] in _ACTIONS:
        return None
    quotation = mark["quote"] or ""
    return _Secret(*value.span("value"), f"{quotation}{REDACTED}{quotation}")


def _has_token(name: str) -> bool:
    return "fsk_" in name or "eyJ" in name


@lru_cache(4096)
def _is_secret_mark(kind: str, name: str) -> bool:
    """Return whether a value after this mark is secret."""
    name = parse.unquote(name)
    if kind == "parameter" and name.casefold() in _IN_A_QUERY:
        return True
    if kind == "header" and "-" not in name and name.lower() not in ("authorization", "cookie"):
        return False  # prose, too, has words followed by a colon
    return is_secret_name(name)


def _held_json(text: str, level: int) -> str:
    if (held := _json(text)) is not None:
        return _json_text(text, held, level)
    if '\\"' in text and isinstance(held := _json(f'"{text}"'), str):
        return _json_text(f'"{text}"', held, level)[1:-1]
    return text


def _json_text(text: str, held: JsonValue, level: int) -> str:
    """Redact secrets in a JSON text; return it unchanged if it has none."""
    if level >= _MAX_JSON_DEPTH:
        return REDACTED
    try:
        redacted = _walk(held, level + 1)
        return text if redacted == held else to_json(redacted).decode()
    except (RecursionError, ValueError):
        return REDACTED


def _is_basic(token: str) -> bool:
    """Return whether the word after "Basic" is a credential rather than prose."""
    if re.search(r"[0-9=+/]|fsk_|-----BEGIN", token):
        return True
    try:
        return b":" in b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        return False


def _json(text: str) -> JsonValue:
    """Parse a text as a JSON object, list or string; return None if it is none of them."""
    try:
        held = cast(JsonValue, from_json(text))
    except ValueError:
        return None
    return held if isinstance(held, (dict, list, str)) else None


# --- values ------------------------------------------------------------------------------------------------------


def redact(value: JsonValue) -> JsonValue:
    """Redact secrets in a value, recognized by name or by shape."""
    return _walk(value, 0)


def redact_object(value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return cast("dict[str, JsonValue]", redact(dict(value)))


def redact_row(row: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Redact the row of an API key or a secret: only fields known to be safe keep their texts."""
    return {_name(name).safe: _row_value(_name(name), item) for name, item in row.items()}


def secrets_in(value: JsonValue) -> list[str]:
    """Return texts under secret names, if long enough to be distinguished from other texts."""
    if isinstance(value, list):
        return [text for item in value for text in secrets_in(item)]
    if not isinstance(value, dict):
        return []
    return [
        text
        for name, item in value.items()
        for text in (
            (text for text in texts_in(item) if len(text) >= _MIN_ENCODED_SECRET)
            if is_secret_name(name)
            else secrets_in(item)
        )
    ]


def texts_in(value: JsonValue) -> list[str]:
    """Return all texts in a value, without its keys."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in texts_in(item)] if isinstance(value, list) else []


def is_redacted(value: JsonValue) -> bool:
    return find_redacted(value) is not None


def find_redacted(value: JsonValue) -> str | None:
    """Return the path of the first redacted secret, as `find_text` does."""
    return find_text(value, lambda text: REDACTED in text)


def find_text(value: JsonValue, fits: Callable[[str], bool], path: str = "") -> str | None:
    """Return the path of the first match, as `extra.headers[0]`, or of the object whose key matches; None if none."""
    if isinstance(value, str):
        return path or "the value" if fits(value) else None
    if isinstance(value, list):
        inner = ((f"{path}[{number}]", item) for number, item in enumerate(value))
    elif isinstance(value, dict):
        if any(map(fits, value)):
            return path or "the value"
        inner = ((f"{path}.{name}".lstrip("."), item) for name, item in value.items())
    else:
        return None
    matches = (find_text(item, fits, at) for at, item in inner)
    return next(filter(None, matches), None)


def _raw(value: object) -> bytes | None:
    try:
        return to_json(value)
    except ValueError:  # an unpaired surrogate, or too deep
        return None


class _Shape(NamedTuple):
    """Keys of an object, cached because the rows of a list share them."""

    names: tuple[_Name, ...]
    has_pairs: bool
    """Whether one key may name the secret under another, as in {"name": "apiKey", "value": "..."}."""
    is_safe: bool
    """Whether no key has to change."""


def _shape(keys: tuple[str, ...]) -> _Shape:
    return _known_shape(keys) if len(keys) <= 64 else _read_shape(keys)


def _read_shape(keys: tuple[str, ...]) -> _Shape:
    names = tuple(map(_name, keys))
    plain = {name.plain for name in names}
    has_pairs = not _NAME_KEYS.isdisjoint(plain) and not _VALUE_KEYS.isdisjoint(plain)
    return _Shape(names, has_pairs, keys == tuple(name.safe for name in names))


_known_shape = lru_cache(1024)(_read_shape)


def _walk(value: JsonValue, level: int) -> JsonValue:
    if isinstance(value, str):
        return _text(value, level)
    if isinstance(value, list):
        rows = [item for item in value if isinstance(item, dict)]
        if len(rows) == len(value) > 1:
            return cast(JsonValue, _rows(rows, level))
        return [_hidden_pair(item) or _walk(item, level) for item in value]
    return _object(value, level) if isinstance(value, dict) else value


def _object(value: dict[str, JsonValue], level: int) -> dict[str, JsonValue]:
    names, has_pairs, _ = _shape(tuple(value))
    is_pair = has_pairs and any(
        name.plain in _NAME_KEYS and isinstance(item, str) and is_secret_name(item)
        for name, item in zip(names, value.values(), strict=True)
    )
    redacted: dict[str, JsonValue] = {}
    for name, item in zip(names, value.values(), strict=True):
        if name.secret or (is_pair and name.plain in _VALUE_KEYS):
            redacted[name.safe] = _hide(item, many=name.many)
        elif isinstance(item, str):
            redacted[name.safe] = _text(item, level)
        else:
            redacted[name.safe] = _walk(item, level) if isinstance(item, (dict, list)) else item
    return redacted


def _rows(rows: list[dict[str, JsonValue]], level: int) -> list[dict[str, JsonValue]]:
    """Redact objects. Of objects with the same keys, only columns with a text that is not ordinary are looked at."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault(tuple(row), []).append(number)
    shown = list(rows)
    for keys, numbers in alike.items():
        shape = _shape(keys)
        same = [rows[number] for number in numbers]
        if shape.has_pairs or not shape.is_safe:
            redacted = [_object(row, level) for row in same]
        else:
            columns = zip(shape.names, zip(*(row.values() for row in same), strict=True), strict=False)
            changed = {
                name.safe: [_hide(cell, many=name.many) if name.secret else _walk(cell, level) for cell in cells]
                for name, cells in columns
                if name.secret or not _are_ordinary(cells)
            }
            if not changed:
                continue
            cells = zip(*changed.values(), strict=True)
            redacted = [row | dict(zip(changed, of_row, strict=True)) for row, of_row in zip(same, cells, strict=True)]
        for number, row in zip(numbers, redacted, strict=True):
            shown[number] = row
    return shown


def _hidden_pair(item: JsonValue) -> JsonValue:
    """Redact a header such as ["Authorization", "..."]; return None if it is not a secret header."""
    match item:
        case [str(name), str()] if is_secret_name(name):
            return [_name(name).safe, REDACTED]
        case _:
            return None


def _hide(value: JsonValue, *, many: bool) -> JsonValue:
    """Redact a value under a secret name; `many` if the name is a plural, as of rows or of a count."""
    match value:
        case None | bool() | "":
            return value
        case str():
            return REDACTED
        case int() | float():
            return value if many else REDACTED
        case list():
            return [
                _hide(item, many=many) if isinstance(item, (dict, list)) else _hide(item, many=False) for item in value
            ]
        case dict() if value.get("type") in _SCHEMA_TYPES:
            return {
                _name(name).safe: _walk(item, 0) if name in _SCHEMA_WORDS else _hide(item, many=False)
                for name, item in value.items()
            }
        case dict() if many and not any(_name(name).secret for name in value):
            return redact_row(value)
        case _:
            return {_name(name).safe: _hide(item, many=False) for name, item in value.items()}


def _row_value(name: _Name, value: JsonValue) -> JsonValue:
    if name.plain in _FRAGMENT_FIELDS:
        is_fragment = isinstance(value, str) and (len(value) <= 16 or _MASK.search(value) is not None)
        return value if is_fragment else _hide(value, many=False)
    if name.plain in _SAFE_FIELDS or (_ABOUT_A_SECRET.search(name.safe) and not name.secret):
        return redact(value)
    match value:
        case dict():
            return redact_row(value)
        case list():
            return [_row_value(name, item) for item in value]
        case int() | float() if not name.secret and name.plain not in _VALUE_KEYS:
            return value
        case _:
            return _hide(value, many=name.many)


# --- known secrets -------------------------------------------------------------------------------------------------

_MIN_SECRET = 4
"""Minimum length in characters. Shorter secrets occur in too many harmless texts."""

_MIN_ENCODED_SECRET = 8
_MAX_SPELLED = 256
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")
_SLASHES = r"\\{1,32}"
"""Up to six levels of escaping. Unlimited, a long run of backslashes would take quadratic time."""
_SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "\n": "n", "\t": "t", "\r": "r"}


class Redactor:
    """Redact known secrets: plain, percent-encoded, escaped or in base64."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: a secret may contain another.
        self.secrets = sorted({text for text in secrets if len(text) >= _MIN_SECRET}, key=len, reverse=True)
        self._cores = [core for text in self.secrets for core in _base64_cores(text)]
        self._bytes = [text.encode(errors="replace") for text in (*self.secrets, *self._cores)]

    def may_stand_in(self, body: bytes) -> bool:
        """Return whether this JSON text may contain one of the secrets."""
        return bool(self.secrets) and (b"\\" in body or b"%" in body or any(text in body for text in self._bytes))

    def __call__(self, value: JsonValue) -> JsonValue:
        return each_text(value, self.text)

    def object(self, value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        return cast("dict[str, JsonValue]", self(dict(value)))

    def text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        if self.secrets and ("%" in text or "\\" in text):
            text = self._spelled.sub(REDACTED, text)
        for core in self._cores:
            while (at := text.find(core)) >= 0:
                start = at
                end = at + len(core)
                while start > 0 and text[start - 1] in _BASE64:
                    start -= 1
                while end < len(text) and text[end] in _BASE64:
                    end += 1
                text = text[:start] + REDACTED + text[end:]
        return text

    def find(self, value: JsonValue) -> str | None:
        """Return the path of the first secret, as `extra.headers[0]`; None if there is none."""
        return find_text(value, lambda text: self.text(text) != text)

    @cached_property
    def _spelled(self) -> "re.Pattern[str]":
        return re.compile("|".join(map(_spellings, self.secrets)))


def _spellings(secret: str) -> str:
    """Return a pattern of the secret with any characters percent-encoded or JSON-escaped, at any depth."""
    if len(secret) > _MAX_SPELLED:
        whole = {
            parse.quote(secret),
            parse.quote(secret, safe=""),
            dumps(secret)[1:-1],
            dumps(secret, ensure_ascii=False)[1:-1],
        }
        return "|".join(map(re.escape, sorted(whole)))
    return "".join(map(_spelling, secret))


@lru_cache(512)
def _spelling(letter: str) -> str:
    percent = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in letter.encode(errors="replace"))
    units = letter.encode("utf-16-be", "surrogatepass")
    escaped = "".join(rf"{_SLASHES}u(?i:{units[n : n + 2].hex()})" for n in range(0, len(units), 2))
    short = rf"|{_SLASHES}{re.escape(_SHORT_ESCAPES[letter])}" if letter in _SHORT_ESCAPES else ""
    return f"(?:{re.escape(letter)}|{percent}|{escaped}{short})"


def _base64_cores(secret: str) -> list[str]:
    """Return the parts of the secret's base64 that do not depend on the text around it, in both alphabets."""
    data = secret.encode(errors="replace")
    if len(data) < _MIN_ENCODED_SECRET:
        return []
    cores: set[str] = set()
    for shift, start in ((0, 0), (1, 2), (2, 3)):
        for encode in (b64encode, urlsafe_b64encode):
            coded = encode(b"\0" * shift + data).decode().rstrip("=")
            cores.add(coded[start : len(coded) - (1 if (shift + len(data)) % 3 else 0)])
    return sorted(cores)


_MASKED_VALUE = re.compile(
    r"[\w-]{0,16}[*•●·]{3,}[\w-]{0,16}|[\w-]{1,16}(?:\.{3,}|…)[\w-]{1,16}|[xX]{4,}[\w-]{0,8}"
    r"|[\[<(](?i:redacted|masked|hidden)[\])>]"
)


def is_masked(text: str) -> bool:
    """Return whether a text is what Fastn shows in place of a secret: `••••`, `sk_****1234`, `[REDACTED]`."""
    return _MASKED_VALUE.fullmatch(text.strip()) is not None


_MASK = re.compile(r"[*•●·…]+|\.{2,}|[xX]{3,}")


def is_own_key(key: str, row: Mapping[str, object]) -> bool | None:
    """Return whether the row of an API key describes this key, by the parts that it shows; None if they do not tell.

    A row that shows no part of its key could describe any key.
    """
    verdicts = _verdicts(key, row)
    if True in verdicts or False in verdicts:
        return True in verdicts
    return None if _has_mode_of(key, row) else False


AnyRow = TypeVar("AnyRow", bound=Mapping[str, object])


def own_key_row(key: str, rows: Iterable[AnyRow]) -> AnyRow | None:
    """Return the only row of an API key that describes this key and contradicts it in no part; None if it is not
    one."""
    own: list[AnyRow] = []
    for row in rows:
        verdicts = _verdicts(key, row)
        if True in verdicts and False not in verdicts and _has_mode_of(key, row):
            own.append(row)
    return own[0] if len(own) == 1 else None


def _shown_parts(row: Mapping[str, object]) -> dict[str, str]:
    return {_name(name).plain: item for name, item in row.items() if isinstance(item, str) and item}


def _verdicts(key: str, row: Mapping[str, object]) -> set[bool | None]:
    """Return whether each part of a key that a row shows belongs to this key."""
    fields = _FRAGMENT_FIELDS | {"key", "apikey"}
    return {_fits(key, name, text) for name, text in _shown_parts(row).items() if name in fields}


def _has_mode_of(key: str, row: Mapping[str, object]) -> bool:
    """Whether a row may be of a key in the mode of this one, as far as both tell."""
    mode = _shown_parts(row).get("mode", "").casefold()
    if not key.startswith(("fsk_test_", "fsk_live_")) or mode not in ("test", "live"):
        return True
    return (mode == "test") == key.startswith("fsk_test_")


def _fits(key: str, name: str, text: str) -> bool | None:
    """Return whether a shown part belongs to this key. A head may be no more than the prefix common to all keys."""
    mask = list(_MASK.finditer(text))
    if mask:
        head = text[: mask[0].start()]
        tail = text[mask[-1].end() :]
    else:
        head = text if name in _PREFIX_FIELDS or text.startswith("fsk_") else ""
        tail = text if name in _SUFFIX_FIELDS or name in _MASKED_FIELDS else ""
    if name in _MASKED_FIELDS and not mask and not text.startswith("fsk_"):
        return True if key.endswith(tail) or key.startswith(text) else None  # a hint can be free text
    if not mask and text == key:
        return True
    if len(tail) >= _MIN_SECRET and name not in _PREFIX_FIELDS:
        return key.endswith(tail)
    if head and not key.startswith(head):
        return False
    return None


# --- sanitizing ----------------------------------------------------------------------------------------------------

_MARKS = 3
"""Consecutive combining marks that a script may need."""

# Invisible letters, marks and symbols that the categories in `_is_unseen` do not cover.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffc\U00013441\U00013442\U00016fe4\U0001d159")
_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF), (0x180B, 0x180F))
_PLAIN_TEXT = re.compile(r"[\x20-\x7e\n\t]*")


def sanitize(text: str, *, keep: str = "") -> str:
    """Escape invisible characters as `\\u{...}`, except those in `keep`.

    Control, bidirectional and invisible characters, and any blank but the plain space, can hide text from a person,
    make two names look alike, or move the output of a terminal. Letters keep as many combining marks as a script needs.
    """
    if _PLAIN_TEXT.fullmatch(text) and not any(letter in text for letter in "\n\t" if letter not in keep):
        return text
    if not any(_is_unseen(letter) or _is_mark(letter) for letter in set(text).difference(keep)):
        return text
    marks = 0
    characters: list[str] = []
    for letter in text:
        marks = marks + 1 if _is_mark(letter) else 0
        unseen = letter not in keep and (marks > _MARKS or _is_unseen(letter))
        characters.append(f"\\u{{{ord(letter):x}}}" if unseen else letter)
    return "".join(characters)


def safe(value: JsonValue) -> JsonValue:
    """Redact secrets and escape invisible characters in a value. Line breaks and tabs stay."""
    return safe_json(value)[0]


def safe_json(value: JsonValue) -> tuple[JsonValue, bytes | None]:
    """Return the same with its JSON; None if JSON cannot represent it."""
    value = _walk(value, 0)
    if (raw := _raw(value)) is None or not _is_plain(raw):
        value = each_text(value, lambda text: sanitize(text, keep="\n\t"))
        raw = _raw(value)
    return value, raw


def safe_text(text: str) -> str:
    """Redact secrets and escape invisible characters in a text, which becomes one line."""
    return sanitize(redact_text(text))


def shorten(text: str, longest: int) -> str:
    """Cut a text to `longest` characters, and append how many were removed."""
    return text if len(text) <= longest else text[:longest] + left_out(len(text) - longest)


def left_out(characters: int) -> str:
    """Return the note on `characters` that were cut; empty if none were."""
    return f" [{characters} more character{'s' if characters > 1 else ''}]" if characters > 0 else ""


MAX_VALUE = 200


def quote(value: object, limit: int = MAX_VALUE, *, is_name: bool = False) -> str:
    """Format a value on one line, cut with a count. Text is quoted so that it cannot pose as ours.

    An object or a list is JSON; cut or redacted JSON, whose quotation marks may not match, is quoted as a whole.
    `is_name` is for names such as `api-keys:create`, in which nothing is secret.
    """
    json = "" if isinstance(value, str) else to_json(value, inf_nan_mode="strings").decode()
    text = value if isinstance(value, str) else json
    text = text if is_name else redact_text(text)
    cut = text[:limit]
    if isinstance(value, str) or cut != json:
        cut = '"' + cut.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return sanitize(cut) + left_out(len(text) - limit)


_MAX_PERSON_NAME = 100
_MAX_ADDRESS = 254
"""Characters of an e-mail address (RFC 5321)."""


def person(name: str, email: str) -> str:
    """Format a person as `name <email>`, or what is known of that, on one line. Neither part can pose as the other."""
    name, email = (sanitize(redact_text(_BRACKETS.sub("", text)).strip()) for text in (name, email))
    name = shorten(name, _MAX_PERSON_NAME)
    email = shorten(email, _MAX_ADDRESS)
    return f"{name} <{email}>" if name and email and name != email else name or email


_BRACKETS = re.compile(r"[<>|]")
"""What sets an address apart from a name, and a subject from its issuer."""


def name_as_read(name: str) -> str:
    """Return the name as a person, or a server that trims and normalizes, reads it: ` PAY\u200b_KEY` is `pay_key`."""
    return " ".join(_letters(name).split()).casefold()


def _is_plain(raw: bytes) -> bool:
    """Return whether JSON text needs no sanitizing."""
    if not raw.isascii() or b"\x7f" in raw:
        return False
    return b"\\" not in raw or (b"\\u" not in raw and b"\\r" not in raw)


def each_text(value: JsonValue, change: Callable[[str], str]) -> JsonValue:
    """Return a value with each of its texts changed, the names of fields too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {change(name): each_text(item, change) for name, item in value.items()}
    return value


def _letters(text: str) -> str:
    """Return the text as it reads: compatible letters unified, blanks as spaces, invisible characters removed."""
    if text.isascii() and text.isprintable():
        return text
    normal = unicodedata.normalize("NFKC", text)
    if not any(map(_is_unseen, set(normal))):
        return normal
    return "".join(
        " " if letter.isspace() else letter for letter in normal if letter.isspace() or not _is_unseen(letter)
    )


@lru_cache(2048)
def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Me")


@lru_cache(2048)
def _is_unseen(letter: str) -> bool:
    if letter == " ":
        return False
    if unicodedata.category(letter).startswith(("C", "Z")) or letter in _INVISIBLE:
        return True
    return any(first <= ord(letter) <= last for first, last in _SELECTORS)
