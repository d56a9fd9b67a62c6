"""The command of a fork: hands its streams over, passes signals on, and ends with the exit code of the fork."""

import json
import os
import signal
import socket
import sys


def main(path: str, *arguments: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        command = json.dumps((arguments, dict(os.environ), os.getcwd()))  # noqa: PTH109 - imports little
        socket.send_fds(connection, [command.encode() + b"\n"], [0, 1, 2])
        fork = int.from_bytes(connection.recv(4), "big")
        if not fork:
            return 1  # it ended before it began
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: os.kill(fork, received))
        signal.signal(signal.SIGUSR1, lambda _, __: os.kill(fork, signal.SIGKILL))
        for stream in (0, 1, 2):
            os.close(stream)
        status = b"".join(iter(lambda: connection.recv(64), b""))  # up to its end
    if not status:  # ended by a signal
        os.kill(os.getpid(), signal.SIGKILL)
    return status[0]


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))
