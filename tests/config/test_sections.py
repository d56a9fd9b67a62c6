"""Settings of extensions: tables of the file and variables, read by the type that the extension gives."""

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from fastn_mcp.config.load import choose, ledger_settings, load, read_file
from fastn_mcp.config.model import MOVED, Settings
from fastn_mcp.config.sections import ChannelSection, Section, SectionReader
from fastn_mcp.errors import SettingsError

KEY = {"FASTN_API_KEY": "fsk_test_x"}
SECRET = "c4n4ry-secret"


class Chat(ChannelSection):
    token: str = Field(pattern="^c4n4ry-", repr=False)
    room: str | None = None
    style: Literal["plain", "rich"] = "plain"


class Metrics(Section):
    port: int = 9000


TYPES: dict[str, type[Section]] = {"chat": Chat, "metrics": Metrics}


def type_of(extension: str) -> type[Section]:
    if extension not in TYPES:
        raise SettingsError(f"There is no extension {extension}.")
    return TYPES[extension]


READER = SectionReader(type_of, with_variables=("chat",))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def read(file: Path, text: str = "", **environment: str) -> Settings:
    file.write_text(text)
    file.chmod(0o600)
    return load({}, {**KEY, **environment}, file, sections=READER)


def test_extension_without_table_or_variable_has_no_settings(file: Path) -> None:
    assert read(file).extensions == {}
    assert read(file).external_channels == []
    assert read(file, FASTN_CHAT_TOKEN="", FASTN_METRICS_PORT="1").extensions == {}


def test_variables_override_the_table(file: Path) -> None:
    settings = read(file, f'[extensions.chat]\ntoken = "{SECRET}"\nroom = "a"\n', FASTN_CHAT_ROOM="b")
    assert settings.extensions == {"chat": Chat(token=SECRET, room="b")}
    assert settings.external_channels == ["chat"]
    assert SECRET in settings.secrets
    assert SECRET not in repr(settings)


def test_table_without_settings_is_enough(file: Path) -> None:
    settings = read(file, "[extensions.metrics]\n")
    assert settings.extensions == {"metrics": Metrics()}
    assert settings.external_channels == []


def test_table_of_a_profile_replaces_that_of_the_top(file: Path) -> None:
    text = (
        f'[extensions.chat]\ntoken = "{SECRET}-top"\nroom = "top"\n[extensions.metrics]\nport = 1\n'
        f'[profiles.acme]\napi_key_env = "K"\n[profiles.acme.extensions.chat]\ntoken = "{SECRET}"\n'
    )
    file.write_text(text)
    file.chmod(0o600)
    settings = load({"profile": "acme"}, {"K": "k"}, file, sections=READER)
    assert settings.extensions == {"chat": Chat(token=SECRET), "metrics": Metrics(port=1)}


def test_secret_is_read_from_a_file_beside_the_configuration_or_from_a_variable(file: Path) -> None:
    (file.parent / "token").write_text(f"{SECRET}\n")
    by_file = read(file, '[extensions.chat]\ntoken_file = "token"\n')
    by_variable = read(file, '[extensions.chat]\ntoken_env = "FASTN_HTTP_TOKN"\n', FASTN_HTTP_TOKN=SECRET)
    assert by_file.extensions == by_variable.extensions == {"chat": Chat(token=SECRET)}


@pytest.mark.parametrize(
    ("text", "environment", "problem"),
    [
        ("[extensions.other]", {}, "There is no extension other."),
        (
            "[extensions.chat]",
            {},
            "line 1: [extensions.chat] needs token. Set it in [extensions.chat] or as FASTN_CHAT_T",
        ),
        ("", {"FASTN_CHAT_ROOM": "c4n4ry"}, "The extension chat needs token."),
        (
            f'[extensions.chat]\ntoken = "{SECRET}"\nstyle = "c4n4ry"',
            {},
            "line 3: the setting style in [extensions.chat] is wrong: it must be 'plain' or 'rich'.",
        ),
        (
            f'[extensions.chat]\ntoken = "{SECRET}"\nrom = "c4n4ry"',
            {},
            "line 3: the setting rom in [extensions.chat] is unknown (did you mean 'room'?).",
        ),
        (
            "",
            {"FASTN_CHAT_TOKEN": SECRET, "FASTN_CHAT_STYLE": "c4n4ry"},
            "The setting style of the extension chat (environment FASTN_CHAT_STYLE) is wrong",
        ),
        ("", {"FASTN_CHAT_TOKN": SECRET}, "The extension chat needs token."),
        (
            f'[extensions.chat]\ntoken = "{SECRET}"\ntoken_env = "OTHER"',
            {},
            "line 1: [extensions.chat] has token more than once. Leave one of token, token_file and token_env.",
        ),
        ('[extensions.chat]\ntoken_env = "FASTN_API_KEY_2"', {}, "The variable FASTN_API_KEY_2 is not set."),
        ("extensions = 1", {}, "settings of an extension are a table, for example [extensions.slack]"),
        ("[extensions]\nchat = 1", {}, "settings of an extension are a table, for example [extensions.slack]"),
    ],
)
def test_wrong_settings_stop_the_start_without_showing_a_value(
    file: Path, text: str, environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(file, text, **environment)
    assert problem in str(caught.value)
    assert "c4n4ry" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_file_with_a_secret_of_an_extension_must_be_private(file: Path) -> None:
    read(file, f'[extensions.chat]\ntoken = "{SECRET}"\n')
    file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"holds chat\.token, and users other than its owner can read it"):
        load({}, KEY, file, sections=READER)
    file.write_text('[extensions.chat]\ntoken_env = "OTHER"\n')
    assert load({}, {**KEY, "OTHER": SECRET}, file, sections=READER).external_channels == ["chat"]


def test_without_a_reader_tables_are_left_out(file: Path) -> None:
    """Commands that only look for a key or a profile load no extension."""
    file.write_text("[extensions.other]\nwhatever = 1\n")
    assert choose({}, KEY, read_file(file)).keyless().extensions == {}


def test_ledger_may_be_kept_by_an_extension_that_the_file_names(file: Path) -> None:
    file.write_text('ledger = "metrics://host"\n[extensions.metrics]\n')
    assert ledger_settings({}, {}, file, sections=READER).ledger == "metrics://host"
    file.write_text('ledger = "metrics://host"\n')
    with pytest.raises(SettingsError, match="is neither a file nor the URL of a server"):
        ledger_settings({}, {}, file, sections=READER)
    with pytest.raises(SettingsError, match="is neither a file nor the URL of a server"):
        load({}, {**KEY, "FASTN_LEDGER": "metrics://host"}, None, sections=READER)


@pytest.mark.parametrize("setting", MOVED)
def test_setting_that_moved_says_where(file: Path, setting: str) -> None:
    with pytest.raises(SettingsError, match=f"line 1: the setting {setting} is now "):
        read(file, f'{setting} = "x"')
