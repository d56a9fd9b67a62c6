"""Rows that depend on a resource: of a short list all rows are looked at, of a long one what its filters leave."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.account.dependency_rules import DependencyRule
from fastn_mcp.client.absence import control_by, finds_known_rows
from fastn_mcp.client.reads import Pages, call_key, read_each
from fastn_mcp.errors import FastnError, LeftOut
from fastn_mcp.records.rows import FastnObject, Row, key_of, row_of
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import Listed

MAX_PAGES = 3
"""Maximum number of pages of 100 rows read for one kind."""

MAX_DETAILS = 30
"""Maximum number of rows of one kind to read one by one, if the list does not show enough."""


@dataclass(frozen=True, slots=True)
class Uses:
    """Rows of one kind that use the resource. `count` is exact, or a lower bound if `more`."""

    rows: Sequence[Row]
    count: int
    more: bool = False
    silent: int = 0
    """Number of rows that do not tell whether they use it."""
    is_unproven: bool = False
    """Whether there are none by a filter that no known row has proven."""

    def gap(self, kind: str) -> Unchecked | None:
        """Return why the rows read do not settle if there are any dependents; None if they do."""
        if self.is_unproven:
            return Unchecked(kind, "Fastn's filter found none, and nothing proved that it works.", kind)
        if self.silent:
            why = f"The list does not show what they use, and at most {MAX_DETAILS} are read one by one."
            return Unchecked(f"{self.silent} {kind}", why, kind)
        if self.more and not self.count:
            return Unchecked(kind, "Only the first were read, and none of them uses it.", kind)
        return None


class LimitedReads:
    """A `Send` for a number of different reads. Raises `LeftOut` for any other."""

    def __init__(self, send: Send, most: int) -> None:
        self._send = send
        self._left = most
        self._made = set[tuple[str, bytes]]()

    async def __call__(self, call: Call) -> FastnObject:
        key = call_key(call)
        if key not in self._made:
            if not self._left:
                raise LeftOut("Left out, to keep the requests for one change few.")
            self._left -= 1
            self._made.add(key)
        return await self._send(call)


@dataclass(slots=True)
class RowSearch:
    """Search for the rows of one rule: `begin` with one request, then `finish` with what else it takes."""

    rule: DependencyRule
    send: Send
    earlier: Send | None
    """Repeats the reads of an evaluation a short time ago, by which the length of the list may be known."""
    whole: Pages = field(init=False)
    filtered: Pages | None = field(init=False)
    is_by_filters: bool = False
    """Whether the filters tell all rows that depend on the resource."""
    was_long: bool = False
    """Whether the list had more than one page in an earlier evaluation."""
    uses: Uses | None = None
    """What was found; None if nothing could be read."""
    error: FastnError | None = None

    def __post_init__(self) -> None:
        self.whole = Pages(self.rule.whole, self.send, MAX_PAGES)
        filtered = self.rule.filtered
        self.filtered = None if filtered is None else Pages(filtered, self.send, MAX_PAGES)

    @property
    def is_long(self) -> bool:
        """Whether the list has more than one page, as far as that is known."""
        return self.was_long or (bool(self.whole.pages) and not self.whole.is_complete)

    async def begin(self, *, is_large: bool) -> None:
        """Read the first page, or what filters leave where the list is known or supposed to be long.

        `is_large`: another list of the account is long.
        """
        first = await self._read_earlier()
        prefers_filters = is_large or self.rule.depends is None
        if first is not None:
            self.was_long = not first.is_complete
            prefers_filters = self.was_long
        pages = self.filtered if prefers_filters and self.filtered is not None else self.whole
        try:
            await anext(pages)
        except FastnError as error:
            self.error = error

    async def finish(self, details: int, *, needs_proof: bool) -> None:
        """Find the rows that depend on the resource, or the `error`. Reads up to `details` undecided rows one by one.

        `needs_proof`: whether it has to be proven that a filter found none where Fastn has filtered the list.
        """
        if self.error is not None:
            return
        try:
            self.uses = await self._found(details, needs_proof=needs_proof)
        except FastnError as error:
            self.error = error

    async def _found(self, details: int, *, needs_proof: bool) -> Uses:
        is_settled = False
        is_unproven = False
        try:
            is_settled = await self._read(needs_proof=needs_proof)
        except LeftOut:
            is_unproven = self.filtered is not None and self.filtered.is_complete
        if self.rule.depends is None and any(page.not_checked for page in self._filtered_pages):
            raise FastnError("The rows do not say what they belong to.")
        uses = await self._uses(details, is_settled=is_settled or is_unproven)
        return replace(uses, is_unproven=is_unproven and not uses.rows)

    @property
    def _filtered_pages(self) -> Sequence[Listed]:
        return () if self.filtered is None else self.filtered.pages

    async def _read(self, *, needs_proof: bool) -> bool:
        """Read until it is known which rows there are, or the limit of pages. Returns whether it is known."""
        filtered = self.filtered
        if filtered is None or (self.whole.is_complete and not self._has_silent_rows):
            await self.whole.read_rest()
            return self.whole.is_complete
        await filtered.read_rest()
        trusts_filters = self.rule.depends is None and (self.rule.filters_of is None or not needs_proof)
        if trusts_filters or self._is_told_by_filters:
            self.is_by_filters = True
            return filtered.is_complete
        self.is_by_filters = await self._is_proven_earlier()
        if not self.is_by_filters and not self.whole.pages:
            await anext(self.whole)
        if not self.is_by_filters and (not self.whole.is_complete or self._has_silent_rows):
            self.is_by_filters = await self._is_proven(self.whole.rows, self.send)
        if not self.is_by_filters:
            await self.whole.read_rest()
        return self.is_by_filters or self.whole.is_complete

    @property
    def _has_silent_rows(self) -> bool:
        """Whether a row of the whole list does not tell what Fastn may filter by."""
        return self.rule.depends is None and any(self.rule.answer_of(row) is None for row in self.whole.rows)

    @property
    def _is_told_by_filters(self) -> bool:
        """Whether the filtered answer needs no proof: it has rows, or Fastn ignored the filters and sent all rows."""
        pages = self._filtered_pages
        if any(page.not_checked for page in pages):
            return False
        is_ignored = any(page.received != len(page.rows) for page in pages)
        return any(page.rows for page in pages) or (is_ignored and pages[-1].next_cursor is None)

    async def _read_earlier(self) -> Pages | None:
        """Return the first page of the whole list as an earlier evaluation has read it."""
        if self.earlier is None:
            return None
        pages = Pages(self.rule.whole, self.earlier, 1)
        with suppress(FastnError):
            await anext(pages)
            return pages
        return None

    async def _is_proven_earlier(self) -> bool:
        """Return whether an earlier evaluation has proven the filters."""
        pages = await self._read_earlier()
        if pages is None or self.earlier is None:
            return False
        with suppress(FastnError):
            return await self._is_proven(pages.rows, self.earlier)
        return False

    async def _is_proven(self, known: Sequence[Row], send: Send) -> bool:
        """Return whether filters of the same names, which found nothing, find a known row."""
        is_empty = not any(page.received for page in self._filtered_pages)
        if not is_empty or self.rule.filters_of is None:
            return False
        control = control_by(self.rule.filters_of, known, differs_from=self.rule.wanted)
        with suppress(ValueError):
            return await finds_known_rows(type(self.rule.reading), [control], send)
        return False

    async def _uses(self, details: int, *, is_settled: bool) -> Uses:
        found = {key_of(row) or id(row): row for row in self.whole.rows}
        filtered = [row for page in self._filtered_pages for row in page.rows]
        looked_at = [*(found | {key_of(row) or id(row): row for row in filtered}).values()]
        answers = [(row, self.rule.answer_of(row)) for row in looked_at]
        rows = [row for row, answer in answers if answer]
        silent = [row for row, answer in answers if answer is None and (row in filtered or not self.is_by_filters)]
        total = None if is_settled else self._total()
        detail = self.rule.detail
        if detail is not None and details:

            async def depends(number: int) -> bool | None:
                return self.rule.answer_of(row_of(await self.send(detail(key_of(silent[number])))))

            settled = await read_each(range(min(details, len(silent))), depends)
            rows += [row for number, row in enumerate(silent) if settled.get(number)]
            silent = [row for number, row in enumerate(silent) if settled.get(number) is None]
        more = total is None and not is_settled
        return Uses(rows, max(len(rows), total or 0), more, len(silent))

    def _total(self) -> int | None:
        """Return Fastn's count of the rows, where it counts dependents: those that it has filtered."""
        pages = self._filtered_pages
        is_filtered = self.rule.depends is None and bool(pages) and all(len(page.rows) == 100 for page in pages)
        return pages[-1].total if is_filtered else None
