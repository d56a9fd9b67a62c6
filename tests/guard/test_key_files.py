"""Files of new API keys: whose they are, what they hold, and what is left of a key in the result."""

from pathlib import Path

import pytest
from pydantic import JsonValue

from fastn_mcp.errors import NotSent
from fastn_mcp.guard.key_files import KeyFileWriter, SecretValues
from fastn_mcp.redaction import redact
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.access import CreateApiKey, CreateSecret, NewApiKey
from fastn_mcp.tools.customers import CreateCustomer, Customer


def shown(folder: Path, answer: dict[str, JsonValue], name: str = "BI") -> dict[str, JsonValue]:
    """What is left of Fastn's answer once its secrets are in a file."""
    result = KeyFileWriter(folder)(CreateApiKey(name=name), NewApiKey.model_validate(answer))
    return result.model_dump(exclude_unset=True)


@pytest.mark.posix
def test_each_secret_of_a_response_is_written_and_replaced(tmp_path: Path) -> None:
    """Fastn does not document where the key is: in any field of such a name, at any depth."""
    folder = tmp_path / "keys"
    file = folder / "key_1.txt"
    stored = f"[in the file {file} on this server's machine]"
    assert shown(
        folder,
        {
            "id": "key_1",
            "name": "BI",
            "key": "fsk_a",
            "secret": "",
            "apiKey": {"value": "schlüssel", "mode": "Test", "token": None},
            "extra": ["plain", {"key": "fsk_b", "type": "kept"}, [{"signingSecret": "fsk_c"}]],
        },
    ) == {
        "id": "key_1",
        "name": "BI",
        "key": stored,
        "secret": "",
        "apiKey": {"value": stored, "mode": "Test", "token": None},
        "extra": [stored, {"key": stored, "type": "kept"}, [{"signingSecret": stored}]],
    }
    assert file.read_text(encoding="utf-8") == (
        "key=fsk_a\napiKey.value=schlüssel\nextra.0=plain\nextra.1.key=fsk_b\nextra.2.0.signingSecret=fsk_c\n"
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


SECRET = "C4N4RY0f5a9b2c7d"


@pytest.mark.parametrize(
    "issued",
    [
        *({name: SECRET} for name in ("rawKey", "plainTextKey", "plaintext_key", "keyValue", "fullKey", "anything")),
        {"downloadUrl": f"https://fastn.example/once/{SECRET}"},
        {"credentials": {"id": "1", "text": SECRET}},
        {"keys": [SECRET]},
        {"keyPrefix": f"fsk_live_{SECRET}"},
        {"id": f"fsk_live_{SECRET}"},
    ],
    ids=str,
)
def test_new_key_is_withheld_in_any_field(issued: dict[str, JsonValue], tmp_path: Path) -> None:
    documented: dict[str, JsonValue] = {
        "name": "BI", "mode": "Test", "permissions": "Custom", "matrix": ["executions:read"], "customers": ["c_1"],
        "keyPrefix": "fsk_test_", "last4": "2c7d", "verifyCallerIdentity": False, "resourceScope": "org",
        "allowedIps": ["192.0.2.1"], "rateLimitPerMinute": 60, "expiresAt": "2027-01-01", "lastUsed": "Never",
        "createdAt": "2026-11-28", "createdBy": "dana@fastn.example",
    }  # fmt: skip
    left = shown(tmp_path, documented | issued)
    assert SECRET not in str(left)
    assert {name: left[name] for name in documented.keys() - issued} == {
        name: documented[name] for name in documented.keys() - issued
    }
    assert SECRET in next(tmp_path.iterdir()).read_text()
    rendered = str(render(CreateApiKey(name="BI"), NewApiKey.model_validate(left), {}))
    assert SECRET not in rendered
    assert str(tmp_path) in rendered


@pytest.mark.parametrize(
    ("id_", "name", "stem"),
    [
        ("key_1", "BI", "key_1"),
        (None, "BI team", "BI-team"),
        ("../../etc/x y", "BI", "..-..-etc-x-y"),
        ("k" * 81, "BI", "k" * 80),
        ("日本", "BI", "-"),
    ],
)
def test_key_file_is_named_by_id_or_name_within_its_folder(
    tmp_path: Path, id_: str | None, name: str, stem: str
) -> None:
    shown(tmp_path, {"id": id_, "key": "fsk_a"}, name)
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.txt"]


def test_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    for key in ("fsk_a", "fsk_b", "fsk_c"):
        shown(tmp_path, {"id": "key_1", "key": key})
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert files == {"key_1.txt": "key=fsk_a\n", "key_1-1.txt": "key=fsk_b\n", "key_1-2.txt": "key=fsk_c\n"}


def test_response_without_a_new_key_is_unchanged(tmp_path: Path) -> None:
    writer, customer = KeyFileWriter(tmp_path / "keys"), Customer.model_validate({"id": "c", "key": "slug"})
    assert writer(CreateCustomer(name="A"), customer) is customer
    empty = NewApiKey.model_validate({"id": "key_1", "key": ""})
    assert writer(CreateApiKey(name="BI"), empty) is empty
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("variable", "reason", "next_step"),
    [
        ("fastn_x", "holds a setting or a secret of this server", "Name a variable that holds the value"),
        ("OTHER", "does not give out a variable with this name", "A person can add it to FASTN_SECRET_ENV"),
        ("B_UNSET", "is not set", "A person can set it where the server is started."),
        ("B_EMPTY", "is not set", "A person can set it where the server is started."),
        ("B_OWN", "holds a setting or a secret of this server", "Name a variable that holds another value."),
    ],
)
def test_forbidden_variable_is_refused_with_the_next_step(variable: str, reason: str, next_step: str) -> None:
    environment = {"fastn_x": "1", "OTHER": "2", "B_EMPTY": "", "B_OWN": "Bearer fsk_own_key_0001", "B_GOOD": "3"}
    values = SecretValues(environment, ["A_*", "B_*", "fastn_*"], ["fsk_own_key_0001"])
    with pytest.raises(NotSent) as caught:
        values.fill(CreateSecret(name="A", value_from_env=variable))
    assert caught.value.what.startswith("value_from_env: this ")
    assert reason in caught.value.what
    assert next_step in caught.value.next_step
    assert redact(caught.value.next_step) == caught.value.next_step
    filled = values.fill(CreateSecret(name="A", value_from_env="B_GOOD"))
    assert (filled.value, filled.value_from_env) == ("3", None)
    given = CreateSecret(name="A", value="typed")
    assert values.fill(given) is given
