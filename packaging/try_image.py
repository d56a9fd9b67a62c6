"""Speaks to an image as its users run it: `try_image.py ENGINE IMAGE`, for docker or podman.

Read-only, without a capability; over stdio and over HTTP. Standard library only.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

SMOKE = Path(__file__).parent.parent / ".ci/smoke.py"
LOCKED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
START = 60.0  # seconds


def engine(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(program: str, image: str) -> None:
    alone = (*LOCKED, "--network=none")  # its sandbox needs none
    subprocess.run([sys.executable, SMOKE, program, "run", "--rm", "-i", *alone, image], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = engine(
        *(program, "run", "--detach", *LOCKED, "--network=host", f"--env=FASTN_HTTP={address}", image, "--sandbox")
    )
    try:
        until = time.monotonic() + START
        health = (program, "exec", started, "fastn-mcp", "health")
        while subprocess.run(health, capture_output=True, check=False).returncode != 0:
            if time.monotonic() > until:
                sys.exit(f"It does not get healthy.\n{engine(program, 'logs', started)}")
            time.sleep(0.5)
        who = engine(program, "exec", started, "id", "-u")
        engine(program, "stop", "--time=10", started)
        code = engine(program, "inspect", "--format={{.State.ExitCode}}", started)
    finally:
        subprocess.run([program, "rm", "--force", started], capture_output=True, check=False)
    if (who, code) != ("10001", "0"):
        sys.exit(f"Over HTTP it ran as {who}, and ended with {code}.")
    print("The image serves over stdio and HTTP, is healthy, and ends with 0 when it is told to stop.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
