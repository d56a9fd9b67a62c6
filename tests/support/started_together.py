"""Processes of Python that begin at the same time: each says that it is ready, and waits for a line."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def started(*arguments: str) -> "subprocess.Popen[str]":
    """Start Python with these arguments. The program prints `ready` and reads a line before it begins."""
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]  # a file that is run by its path imports `support`
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def let_begin(*processes: "subprocess.Popen[str]") -> None:
    """Let processes begin, once all are ready."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
