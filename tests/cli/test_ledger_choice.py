"""Which ledger the setting selects: a file, or a server."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import anyio
import pytest
from support.valkey_server import ValkeyServer

from fastn_mcp.build.stores import ledger_at
from fastn_mcp.errors import SettingsError
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.runtime import System


@pytest.mark.parametrize(
    ("setting", "file"),
    [(None, "state/ledger.sqlite"), ("{}/own.db", "own.db"), ("sqlite:{}/own.db", "own.db")],
)
def test_ledger_is_a_file_by_default(tmp_path: Path, setting: str | None, file: str) -> None:
    ledger = ledger_at(setting and setting.format(tmp_path), tmp_path / "state", System())
    assert isinstance(ledger.store, SqliteStore)
    anyio.run(ledger.revision)
    anyio.run(ledger.aclose)
    assert (tmp_path / file).exists()


@pytest.mark.extension("valkey")
def test_invalid_ledger_url_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        ledger_at("valkey://user:canary@host:port", tmp_path, System())
    assert str(caught.value).startswith("The setting ledger (environment FASTN_LEDGER) has an invalid port.")
    assert "canary" not in str(caught.value)


class _Missing(MetaPathFinder):
    """Finder that hides the library, as if it were not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] == "valkey":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


@pytest.mark.extension("valkey")
def test_missing_library_names_the_extra(tmp_path: Path) -> None:
    ours = "fastn_mcp.extensions.valkey"
    taken = {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] == "valkey" or n.startswith(ours)}
    sys.meta_path.insert(0, finder := _Missing())
    try:
        with pytest.raises(SettingsError) as caught:
            ledger_at("valkey://host", tmp_path, System())
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(ours)]:
            del sys.modules[name]
        sys.modules.update(taken)
    assert str(caught.value) == (
        "The setting ledger names a server, but the library for it is not installed."
        " Run: pip install '.[valkey]' in a clone of the repository"
    )


def test_ledger_server_is_selected_by_url(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Valkey, valkeys, redis and rediss; nothing is opened before it is needed."""

    from fastn_mcp.extensions.valkey.store import ValkeyStore

    for scheme in ("valkey", "valkeys", "redis", "rediss"):
        ledger = ledger_at(f"{scheme}://127.0.0.1:1", tmp_path, System())
        assert isinstance(ledger.store, ValkeyStore)

    async def used() -> int:
        ledger = ledger_at(valkey.url(scheme="redis"), tmp_path, System())
        try:
            return await ledger.revision()
        finally:
            await ledger.aclose()

    assert anyio.run(used) == 0
    assert list(tmp_path.iterdir()) == []
