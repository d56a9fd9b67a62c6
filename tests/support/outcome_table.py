"""What a call ends with by what becomes of its requests: on a fake exchange, and over a socket."""

NOT_SENT = "Nothing was sent."
UNCHANGED = "Nothing was changed."
UNKNOWN = "The change may or may not have been made. Do not repeat it until you have checked."
DONE = "It was done. Do not repeat it."

METHODS = ("GET", "PUT", "DELETE", "POST")

Expected = tuple[int, str, str]
"""How often Fastn is asked, the outcome, and what is known of the change."""
ByMethod = dict[str, Expected]


def same(requests: int, outcome: str, known: str = UNCHANGED) -> ByMethod:
    return dict.fromkeys(METHODS, (requests, outcome, known))


def reads_and_writes(read: str, write: str, known: str, read_requests: int = 1) -> ByMethod:
    """A write is sent once, and this is known of it."""
    return same(1, write, known) | {"GET": (read_requests, read, UNCHANGED)}


LOST = same(3, "unknown_outcome", UNKNOWN) | {"GET": (3, "failed", UNCHANGED), "POST": (1, "unknown_outcome", UNKNOWN)}
"""Reads fail; a write may have been applied; a POST is never sent again."""
UNCERTAIN = reads_and_writes("failed", "unknown_outcome", UNKNOWN)
UNREADABLE = reads_and_writes("failed", "applied_unreadable", DONE)
TOO_LARGE = reads_and_writes("too_large", "applied_unreadable", DONE)
BROKEN = reads_and_writes("failed", "applied_unreadable", DONE, read_requests=3)
REDIRECTS = dict.fromkeys((301, 302, 303), UNCERTAIN) | dict.fromkeys((307, 308), same(1, "failed"))

STATUSES: dict[int, ByMethod] = {
    401: same(1, "unauthorized"), 402: same(1, "quota_exceeded"), 403: same(1, "forbidden"), 404: same(1, "not_found"),
    **dict.fromkeys((400, 413, 415, 422), same(1, "invalid")),
    **dict.fromkeys((409, 412), same(1, "conflict")),
    **dict.fromkeys((405, 410, 418, 501, 505), same(1, "failed")),
    **dict.fromkeys((408, 500, 502, 503, 504, 507, 520, 524), LOST),
    429: same(3, "rate_limited"),
}  # fmt: skip
