"""nginx with the deployed configuration in front of servers on this machine."""

import os
import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.ports import running_program

DEPLOY = Path(__file__).parents[2] / "deploy"


def nginx() -> str:
    """Return the path of nginx. Skip the test if it is missing, except in CI on Linux, which installs it."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None and not (os.environ.get("CI") and sys.platform == "linux"):
        pytest.skip("there is no nginx (Debian: apt-get install nginx-light)")
    assert program is not None, "there is no nginx, and .ci/run installs it"
    return program


@contextmanager
def balanced(folder: Path, port: int, servers: Sequence[int]) -> Generator[None]:
    """Run nginx with deploy/nginx.conf, except for its own port and those of the servers."""
    program = nginx()
    folder.mkdir()
    shutil.copy(DEPLOY / "nginx.conf", folder)
    (folder / "listen.conf").write_text(f"listen 127.0.0.1:{port};\n")
    deployed = (DEPLOY / "replicas.conf").read_text(encoding="utf-8").splitlines()
    first = next(line for line in deployed if "server replica-1:8080" in line)
    rest = [line for line in deployed if "server replica-" not in line]
    named = [first.replace("replica-1:8080", f"127.0.0.1:{each}") for each in servers]
    (folder / "replicas.conf").write_text("\n".join([*rest[:-1], *named, rest[-1]]))
    command = [program, "-p", f"{folder}/", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with (folder / "errors.log").open("wb") as errors, running_program(command, port, stderr=errors):
        yield
