"""Every protocol version with a handshake is answered in that version, as the MCP specification requires."""

import json
from pathlib import Path

import pytest
from support.raw_client import HELLO, META, answers_to, call, introducing, message


def folders(state: Path) -> dict[str, str]:
    return {"FASTN_STATE_DIR": str(state), "FASTN_CONFIG_DIR": str(state)}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_client_of_each_version_lists_and_reads(version: str, tmp_path: Path) -> None:
    lines = (*introducing(version), message(2, "tools/list"), call(3, limit=1))
    answers, _ = answers_to(*lines, flags=("--sandbox",), env=folders(tmp_path))
    assert answers["hello"]["result"]["protocolVersion"] == version
    assert "delete_customer" in [tool["name"] for tool in answers[2]["result"]["tools"]]
    assert answers[3]["result"]["isError"] is False
    assert json.loads(answers[3]["result"]["content"][0]["text"])["data"]


@pytest.mark.parametrize("opens_by_handshake", [True, False])
def test_request_of_the_other_era_is_refused(opens_by_handshake: bool, tmp_path: Path) -> None:
    """MCP: the first request decides the era of a session."""
    enveloped = message(2, "tools/call", name="get_quotas", _meta=META)
    lines, ids = ((HELLO, enveloped), ("hello", 2)) if opens_by_handshake else ((enveloped, HELLO), (2, "hello"))
    answers, _ = answers_to(*lines, flags=("--sandbox",), env=folders(tmp_path))
    assert ["result" in answers[id_] for id_ in ids] == [True, False]
