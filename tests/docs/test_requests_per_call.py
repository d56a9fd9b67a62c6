"""The table of requests per call is what the calls send today."""

from pathlib import Path

import pytest
from requests_per_call import MARKER, table

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "measured.md"


@pytest.mark.long
def test_documented_requests_per_call_are_the_measured_ones() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f"<!-- {MARKER} -->\n")
    documented, marker, _ = rest.partition(f"\n<!-- /{MARKER} -->")
    assert marker
    how = "after a change of what a call reads, or of the sandbox's account: make requests ARGS=--write"
    assert table().splitlines() == documented.splitlines(), how
