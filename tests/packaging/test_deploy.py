"""What runs replicas: the chart is of this version, and its ledger is kept as it has to be."""

import re
from pathlib import Path

from support.valkey_server import ValkeyServer

from fastn_mcp import __version__

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def test_chart_has_the_version_of_the_package() -> None:
    chart = (DEPLOY / "chart/Chart.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^(?:version|appVersion): \"?([^\s\"]+)", chart, re.MULTILINE) == [__version__] * 2


def test_ledger_of_the_compose_file_is_durable(tmp_path: Path) -> None:
    """Its configuration, on a real server, is what docs/shared-ledger.md#what-the-ledger-needs asks for."""
    assert "./valkey.conf:/etc/valkey/valkey.conf:ro" in (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    settings = re.findall(r"^(\S+) (.+)$", (DEPLOY / "valkey.conf").read_text(encoding="utf-8"), re.MULTILINE)
    options = [part for name, value in settings if name != "#" for part in (f"--{name}", value.strip('"'))]
    server = ValkeyServer(tmp_path, tuple(options)).start()
    try:
        for name, value in (("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")):
            assert server.ask("CONFIG", "GET", name).split("\r\n")[-2] == value
    finally:
        server.stop()
