"""What kind of API key a key is, which its prefix says. Pure."""

from typing import Literal

KeyKind = Literal["live", "test", "unknown"]

TEST = "fsk_test_"
LIVE = "fsk_live_"


def kind_of(key: str) -> KeyKind:
    """Live, test, or of a kind that is not known."""
    if key.startswith(TEST):
        return "test"
    return "live" if key.startswith(LIVE) else "unknown"
