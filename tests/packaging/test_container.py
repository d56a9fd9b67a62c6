"""The container file: what it promises, and what it is made of."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fastn_mcp import __version__

ROOT = Path(__file__).parent.parent.parent
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def last(name: str) -> str:
    final = max(index for index, (found, _) in enumerate(instructions()) if found == "FROM")
    return next(rest for found, rest in reversed(instructions()[final:]) if found == name)


def test_base_images_are_pinned_by_digest() -> None:
    values = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG")
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert bases == ["${BASE}"] * 2
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", values["BASE"])


def test_container_runs_as_a_user_without_a_shell() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))
    assert json.loads(last("ENTRYPOINT")) == ["fastn-mcp"]
    assert last("STOPSIGNAL") == "SIGTERM"


def test_health_check_is_the_program_itself() -> None:
    options, _, command = last("HEALTHCHECK").partition("CMD ")
    assert "--timeout" in options
    assert json.loads(command) == ["fastn-mcp", "health"]


def test_state_is_written_to_a_volume() -> None:
    (volume,) = json.loads(last("VOLUME"))
    assert {f"FASTN_STATE_DIR={volume}", f"HOME={volume}", "PYTHONDONTWRITEBYTECODE=1"} <= set(last("ENV").split())


def test_every_download_is_verified_by_a_digest() -> None:
    assert [rest for name, rest in instructions() if name == "ADD"] == []
    commands = [rest for name, rest in instructions() if name == "RUN"]
    installs = [part for rest in commands for part in rest.split(" && ") if "pip" in part and "install" in part]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install
    assert not re.search(r"curl|wget|apt|git ", " ".join(commands))


def test_copied_files_exist_and_nothing_else_is_sent_to_the_engine() -> None:
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[:2] == ["# Only what the Dockerfile copies.", "*"]
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_labels_match_the_registry() -> None:
    labels = dict(re.findall(r'(\S+)="([^"]*)"', last("LABEL")))
    server = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
    assert labels["io.modelcontextprotocol.server.name"] == server["name"]
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert f"VERSION={__version__}" in [rest for name, rest in instructions() if name == "ARG"]


@pytest.mark.parametrize("file", ["container.txt", "requirements.txt", "backend.txt"])
def test_pins_are_those_of_the_tests(file: str) -> None:
    """One lock: what a container or a bundle installs is what the tests ran with."""
    tested, pinned = pins(ROOT / "constraints.txt"), pins(ROOT / "packaging" / file)
    assert {name: pin for name, pin in pinned.items() if tested.get(name) != pin} == {}


def test_every_dependency_is_pinned() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in project["dependencies"]}
    assert needed - pins(ROOT / "packaging/container.txt").keys() == set()


def pins(file: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """The version and the digests of each package; its marker can differ, with what asks for it."""
    found = re.findall(r"^([a-z0-9-]+)==([^\s;]+)[^\n]*((?:\n\s+--hash=\S+[ \\]*)*)", file.read_text(), re.MULTILINE)
    return {name: (version, frozenset(re.findall(r"[0-9a-f]{64}", digests))) for name, version, digests in found}
