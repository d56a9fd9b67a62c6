"""Stores for the guard machine."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.stores import KINDS
from support.valkey_server import ValkeyServer, wait_longer

StoreAddress = Callable[[Path], str]
"""Returns the address of an empty store, for a run in this folder."""


@pytest.fixture(params=[*KINDS, "memory"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store. Two processes in this one share a store in memory too."""
    return request.param


@pytest.fixture
def store_address(store_kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StoreAddress:
    """Empty stores of this kind."""
    if store_kind == "memory":
        return lambda folder: f"memory:{folder}"
    if store_kind == "sqlite":
        return lambda folder: f"sqlite:{folder / 'ledger'}"
    wait_longer(monkeypatch)
    server: ValkeyServer = request.getfixturevalue("valkey")
    return lambda folder: server.url()  # noqa: ARG005 - its name is new each time
