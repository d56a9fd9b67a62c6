"""Fixtures with real OpenID providers."""

from collections.abc import Generator

import pytest
from support.openid_provider import OpenIDProviders


@pytest.fixture(scope="session")
def providers() -> Generator[OpenIDProviders]:
    running = OpenIDProviders()
    yield running
    running.stop()


@pytest.fixture
def provider_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the provider of this machine stand for one that a public server may have."""

    def is_loopback(_host: str) -> bool:
        return False

    monkeypatch.setattr("fastn_mcp.extensions.team.team_config.is_loopback", is_loopback)
