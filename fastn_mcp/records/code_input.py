"""The fields of `ctx.input` that a workflow's code reads, as far as its text tells.

Code is `export default async function (ctx) { ... }`. It is not run, so names that are made at run time are not found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_CODE = 200_000
"""Characters of code that is looked at."""

_MAX_FIELDS = 30
_MAX_SOURCES = 10
"""Maximum number of expressions that hold the input."""

_MAX_USES = 500
"""Maximum number of uses of each expression that are looked at."""

_MAX_PATTERN = 2_000
"""Maximum length of a destructuring pattern in characters."""

_MAX_DECLARATION = 100

_TEXT_OR_COMMENT = re.compile(
    r"""
    (?P<text> "(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z) | '(?:\\.|[^'\\\n])*(?:'|(?=\n)|\Z) | `(?:\\.|[^`\\])*(?:`|\Z) )
    | //[^\n]* | /\*.*?(?:\*/|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME = r"[A-Za-z_$][\w$]*"
_QUOTED = r"[\"'](?P<quoted>[^\"'\n]{1,80})[\"']"
_PARAMETER = re.compile(
    rf"export default (?:async )?(?:function\b ?(?:{_NAME})? ?)?\(? ?(?P<name>(?!(?:async|function)\b){_NAME}|{{)"
)
_FIELD_READ = re.compile(rf" ?\??\. ?(?P<plain>{_NAME})| ?(?:\?\.)?\[ ?{_QUOTED} ?\]")
_DECLARATION = re.compile(rf"(?:const|let|var) (?P<name>{_NAME}) ?= ?\Z")
_DECLARED = re.compile(r"(?:const|let|var) \Z")
_PATTERN_END = re.compile(r"\} ?= ?\Z")
_PROPERTY_NAME = re.compile(r" ?:")
_PATTERN_PART = re.compile(rf" ?(?:(?P<plain>{_NAME})|{_QUOTED}) ?(?:: ?(?P<target>.*))?", re.DOTALL)
"""Patterns of code in which each white space is one blank, so that none can be matched in several ways."""


@dataclass(slots=True)
class InputUse:
    """What code reads of its input."""

    fields: list[str] = field(default_factory=list[str])
    """Names of fields, in the order in which they were found."""
    is_whole: bool = False
    """Whether it may read more: it passes the input on as a whole, or its text does not tell all names."""

    def add(self, name: str) -> None:
        if name not in self.fields:
            self.fields.append(name)
        if len(self.fields) > _MAX_FIELDS:
            self.fields.pop()
            self.is_whole = True


def input_use(code: object) -> InputUse | None:
    """Return what code reads of its input; None if there is no code, or it has no parameter to read it from."""
    if not isinstance(code, str) or len(code) > MAX_CODE:
        return None
    code = " ".join(_TEXT_OR_COMMENT.sub(lambda found: found["text"] or " ", code).split())
    parameter = _PARAMETER.search(code)
    if parameter is None:
        return None
    use = InputUse()
    if parameter["name"] == "{":
        end = _end_of_pattern(code, parameter.end())
        sources = _names_of_input(code[parameter.end() : end], use)
        code = code[end:]
    else:
        code = code[parameter.end() :]
        context = parameter["name"]
        names = _names_taken_from(context, code, use)
        sources = [rf"{re.escape(context)} ?\??\. ?input", *names]
    for number, source in enumerate(sources):  # which grows by the names that are found for the input
        if number == _MAX_SOURCES:
            use.is_whole = True
            break
        sources += [name for name in _read_uses(source, code, use) if name not in sources]
    return use


def _read_uses(source: str, code: str, use: InputUse) -> Iterator[str]:
    """Note what is read of an expression that holds the input. Yield other names that are declared for it."""
    for number, found in enumerate(_occurrences(source, code)):
        if number == _MAX_USES:
            use.is_whole = True
            return
        read = _FIELD_READ.match(code, found.end())
        before = code[max(0, found.start() - _MAX_DECLARATION) : found.start()]
        declaration = _DECLARATION.search(before)
        if read is not None:
            use.add(read["plain"] or read["quoted"])
        elif declaration is not None:
            yield re.escape(declaration["name"])
        elif _PATTERN_END.search(before):
            _read_pattern(_pattern_before(code, found.start()), use)
        elif not (_DECLARED.search(before) or _PROPERTY_NAME.match(code, found.end()) or _is_taken(code, found)):
            use.is_whole = True


def _names_taken_from(context: str, code: str, use: InputUse) -> list[str]:
    """Return the names that patterns give the input of the context. Note if the context itself is passed on."""
    names: list[str] = []
    for number, found in enumerate(_occurrences(re.escape(context), code)):
        if number == _MAX_USES:
            use.is_whole = True
            break
        before = code[max(0, found.start() - _MAX_DECLARATION) : found.start()]
        is_read = _FIELD_READ.match(code, found.end()) is not None
        if not is_read and _PATTERN_END.search(before):
            names += _names_of_input(_pattern_before(code, found.start()), use)
        elif not is_read and _PROPERTY_NAME.match(code, found.end()) is None:
            use.is_whole = True
    return names


def _occurrences(source: str, code: str) -> Iterator[re.Match[str]]:
    return re.finditer(rf"(?<![\w$.]){source}(?![\w$])", code)


def _read_pattern(pattern: str | None, use: InputUse) -> None:
    """Note the fields that a pattern takes from the input; None: its begin was not found."""
    if pattern is None:
        use.is_whole = True
        return
    for part in filter(str.strip, _parts(pattern)):
        key = _PATTERN_PART.match(part)
        if key is None:  # the rest of the fields, or a name that is computed
            use.is_whole = True
        else:
            use.add(key["plain"] or key["quoted"])


def _names_of_input(pattern: str | None, use: InputUse) -> list[str]:
    """Return the names that a pattern gives the field `input` of the context. Note fields that it takes from it."""
    names: list[str] = []
    for part in _parts(pattern or ""):
        key = _PATTERN_PART.match(part)
        if key is None or key["plain"] != "input":
            continue
        target = (key["target"] or "input").strip()
        name = re.match(_NAME, target)
        if name is not None:
            names.append(re.escape(name[0]))
        else:
            _read_pattern(target[1:].partition("}")[0], use)
    return names


def _parts(pattern: str) -> list[str]:
    """Split a pattern at the commas that are not inside of brackets."""
    parts: list[str] = []
    depth = 0
    begin = 0
    for place, letter in enumerate(pattern):
        depth += (letter in "{[(") - (letter in "}])")
        if letter == "," and depth == 0:
            parts.append(pattern[begin:place])
            begin = place + 1
    return [*parts, pattern[begin:]]


def _pattern_before(code: str, end: int) -> str | None:
    """Return the inside of the pattern that is assigned right before `end`; None if it is too long."""
    close = code.rindex("}", 0, end)
    depth = 0
    for place in range(close, max(-1, close - _MAX_PATTERN), -1):
        depth += (code[place] == "}") - (code[place] == "{")
        if depth == 0:
            return code[place + 1 : close]
    return None


def _end_of_pattern(code: str, begin: int) -> int:
    """Return the place of the brace that closes a pattern, given the place after its opening one."""
    depth = 1
    for place in range(begin, min(len(code), begin + _MAX_PATTERN)):
        depth += (code[place] == "{") - (code[place] == "}")
        if depth == 0:
            return place
    return begin


def _is_taken(code: str, found: re.Match[str]) -> bool:
    """Whether a name stands in a pattern that declares it: `const { input, headers } = ctx`."""
    after = code[found.end() : found.end() + _MAX_DECLARATION]
    return re.match(r"[^{}();=]*\} ?=[^=]", after) is not None
