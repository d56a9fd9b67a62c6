"""What all tests share."""

import gc
import importlib.util
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from large_account import large_account
from support.foreign_extensions import install_extensions
from support.library_transport import library_transport
from support.valkey_server import ValkeyServer, valkey_for
from support.world import OPENED, World

from fastn_mcp.build.extensions import OWN
from fastn_mcp.client.exchange import TransportFactory
from fastn_mcp.client.transport import HttpTransport

if TYPE_CHECKING:
    from playwright.async_api import Browser
    from support.otlp_receiver import Receiver
    from support.server_process import Upstream
    from support.slack import Slack

_MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory: what tests write to disk, they write through
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 1 << 30:
    os.environ["TMPDIR"] = str(_MEMORY)

if hasattr(time, "tzset"):  # in UTC, a local time would pass for the right one
    os.environ["TZ"] = "Asia/Kolkata"
    time.tzset()

os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"  # nobody's own keys are asked for, or changed

# Or jsonschema, which clients check answers with, would build grammars for a second in each process that runs tests.
sys.modules["rfc3987_syntax"] = None  # pyright: ignore[reportArgumentType]

# In the background SIGINT is ignored, and so it would be by every process that a test starts and sends Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how much else the machine has to do.
settings.register_profile("ours", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("ours"), max_examples=200)  # of make test-long
# A mutant is judged by the same examples each time, and its first failing example will do.
settings.register_profile(
    "mutants",
    settings.get_profile("ours"),
    database=None,
    derandomize=True,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("ours")


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: a test that waits, for a process or for a person who reads, leaves its core idle."""
    return 2 * (os.cpu_count() or 1)


_MEASURED = "COVERAGE_PROCESS_CONFIG"  # coverage reads it in each process that is started


@pytest.fixture(scope="session", autouse=True)
def process_coverage() -> str | None:
    """What a process that is started needs to be measured, which doubles its time: only those of some tests are."""
    return os.environ.pop(_MEASURED, None)


@pytest.fixture(scope="module", autouse=True)
def measured(request: pytest.FixtureRequest, process_coverage: str | None) -> Generator[None]:
    """Measure the coverage of the processes that the tests of a module start, where it is marked so."""
    if process_coverage is None or request.node.get_closest_marker("measured") is None:
        yield
        return
    os.environ[_MEASURED] = process_coverage
    yield
    del os.environ[_MEASURED]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, and let it pass over what collecting made: a third of the time of both."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Attacks and whole programs are not measured: it doubles their time, and each part has its tests."""
    for item in items:
        if sys.platform == "win32" and item.get_closest_marker("posix") is not None:
            item.add_marker(pytest.mark.skip(reason="for POSIX"))
        for marker in item.iter_markers("extension"):
            missing = [name for name in marker.args or OWN if not has_extension(name)]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"without the extension {missing[0]}"))
        if {"attacks", "end_to_end"} & {*item.path.parent.parts} and item.get_closest_marker("measured") is None:
            item.add_marker(pytest.mark.no_cover)


def has_extension(name: str) -> bool:
    return importlib.util.find_spec(f"fastn_mcp.extensions.{name}") is not None


TRANSPORTS = {"own": HttpTransport, "library": library_transport}


@pytest.fixture(params=TRANSPORTS if "CI" in os.environ else ["own"])
def transport_factory(request: pytest.FixtureRequest) -> TransportFactory:
    """A way to Fastn: this project's transport, and in CI also httpx2's own."""
    return TRANSPORTS[request.param]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def chromium() -> AsyncGenerator["Browser"]:
    from support.real_browser import launched  # Playwright, which few tests need

    async with launched() as browser:
        yield browser


@pytest.fixture
def collector() -> Generator["Receiver"]:
    from support.otlp_receiver import Receiver  # OpenTelemetry, which few tests need

    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def slack() -> Generator["Slack"]:
    from support.slack import served_slack  # aiohttp, which few tests need

    with served_slack() as made:
        yield made
    del made
    with warnings.catch_warnings():  # of connections that the SDK opened while the server ended
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[ValkeyServer]:
    """A server for all tests: each has a ledger of its own on it."""
    with valkey_for(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def built_extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_extensions(tmp_path_factory.mktemp("extensions"))


@pytest.fixture
def foreign_extensions(built_extensions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the extensions of the examples, for this process and those that it starts. Return their folder."""
    monkeypatch.setattr(sys, "path", [str(built_extensions), *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(built_extensions))
    return built_extensions


@pytest.fixture(scope="session")
def sandbox_process() -> Generator["Upstream"]:
    """A sandbox in a process of its own, for all tests that reset it."""
    from support.server_process import running_sandbox  # and with it the SDK's client, which few folders need

    with running_sandbox() as upstream:
        yield upstream


@pytest.fixture
def upstream(sandbox_process: "Upstream") -> "Upstream":
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture(autouse=True)
def close_worlds() -> Generator[None]:
    yield
    for world in list(OPENED):
        world.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh account behind a fresh guard."""
    return World(tmp_path)


@pytest.fixture
def large_world(tmp_path: Path) -> World:
    """The same with 400 connectors, 2,000 customers and 200,000 runs."""
    return World(tmp_path, begin=large_account)
