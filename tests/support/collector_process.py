"""A collector in its own process, which can be killed. It stores what it accepts before it answers."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from support import otlp_receiver
from support.ports import free_port, listening


@dataclass
class CollectorProcess:
    """Listens from `start` on, each time at the same port, and appends to the same file."""

    file: Path
    port: int = field(default_factory=free_port)
    killed: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, otlp_receiver.__file__, str(self.port), str(self.file)])
        listening(self.port, self.process)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None
            self.killed += 1
