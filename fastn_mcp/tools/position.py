"""Where a page of a list begins, as a text that a client gives back. Pure."""

import base64
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """Fastn's own cursor or an offset, how many rows were asked for there, and how many of them were shown already.

    `before` tells the page before, so that a server that takes no offset and answers the same rows again is noticed.
    `size` of 0 means as many rows as the client wants.
    """

    cursor: str | None = None
    offset: int = 0
    skip: int = 0
    before: str = ""
    size: int = 0

    def after(self, rows: int, size: int) -> "Position":
        """The position so many rows on, with as many asked for. One is made for each row of a list."""
        return Position(self.cursor, self.offset, self.skip + rows, self.before, size)

    def encode(self) -> str:
        parts = [self.cursor, self.offset, self.skip, self.before, self.size]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str | None) -> "Position":
        """The inverse. Raises ValueError."""
        if text is None:
            return cls()
        try:
            cursor, *numbers, before, size = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            offset, skip = map(int, numbers)
            if not (cursor is None or isinstance(cursor, str)) or min(offset, skip) < 0 or not 0 <= int(size) <= 100:
                raise ValueError
            if cursor is not None:
                cursor.encode()  # a lone surrogate could not be sent
            return cls(cursor, offset, skip, str(before), int(size))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError("not a next_cursor of an earlier page") from error
