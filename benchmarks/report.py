"""Puts tables between their markers in docs/contributing/measured.md, where only scripts write them."""

from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "contributing" / "measured.md"


def put(name: str, table: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise SystemExit(f"{DOCUMENT.name} has no place for {name}")
    DOCUMENT.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
