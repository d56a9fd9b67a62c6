"""Sources of settings, and the errors of wrong ones."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.build.composition import disabled_tools, enabled_tools
from fastn_mcp.build.startup import settings_of
from fastn_mcp.config.addresses import is_loopback
from fastn_mcp.config.load import ledger_settings, load
from fastn_mcp.config.model import DEFAULT_BASE_URL, REMOVED, SOURCES, TOOLSETS, Settings
from fastn_mcp.config.paths import config_dir, state_dir
from fastn_mcp.errors import SettingsError
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import POST

KEY = {"FASTN_API_KEY": "fsk_live_1"}
CANARY = "canary-3f9a\nX-Evil: hunter2"


def written(folder: Path, text: str) -> Path:
    """A file of settings that only its owner can read."""
    file = folder / "fastn.toml"
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_apply_if_only_a_key_is_set() -> None:
    settings = load({}, KEY, None)
    assert settings.base_url == DEFAULT_BASE_URL == "https://live.fastn.ai"
    assert settings.host == "live.fastn.ai"
    assert (settings.auth, settings.mode, settings.update) == ("header", "guarded", "merge")
    assert (settings.deadline, settings.tools, settings.routes) == (60.0, None, {})


def test_empty_value_counts_as_not_set() -> None:
    """An empty variable is how many clients leave a setting out."""
    settings = load({"env": None}, {**KEY, "FASTN_ENV": "", "FASTN_MODE": "", "FASTN_SPACE_ID": ""}, None)
    assert (settings.env, settings.mode, settings.space_id) == (None, "guarded", None)
    assert load({}, KEY, None).end_org_id is None


LOOSE = sorted(source.variable for source in SOURCES if not source.variable.startswith("FASTN_API_KEY"))


@pytest.mark.parametrize("variable", [*LOOSE, "FASTN_CONFIG"])
def test_misspelt_variable_is_refused(variable: str) -> None:
    """FASTN_READ_ONY=1 would leave everything allowed, and nobody would know."""
    for wrong in (variable[:-2] + variable[-1], variable + "S"):
        with pytest.raises(SettingsError) as caught:
            load({}, {**KEY, wrong: "1"}, None)
        assert f"Unknown variable {wrong}. Did you mean FASTN_" in str(caught.value)


@pytest.mark.parametrize("name", sorted(REMOVED))
def test_removed_setting_stops_the_start_and_says_what_to_do_instead(tmp_path: Path, name: str) -> None:
    variable = f"FASTN_{name.upper()}"
    with pytest.raises(SettingsError) as caught:
        load({}, {**KEY, variable: CANARY}, None)
    assert str(caught.value) == f"{variable} is set, and the setting {name} was removed. {REMOVED[name]}"
    for table, line in (("", 1), ("[profiles.acme]\n", 2)):
        file = written(tmp_path, f'{table}{name} = "canary"\n')
        with pytest.raises(SettingsError) as caught:
            load({}, KEY, file)
        assert str(caught.value).startswith(f"{file}, line {line}: the setting {name} was removed. {REMOVED[name]}")
        assert "canary" not in str(caught.value)


def test_variables_of_other_programs_are_ignored(tmp_path: Path) -> None:
    file = written(tmp_path, '[profiles.acme]\napi_key_env = "FASTN_AUTHS"\n')
    others = {"FASTN_API_KEY_ACME": "x", "FASTN_API_KEY2": "x", "FASTN_WORKSPACE": "x", "FASTN_AUTHS": "x"}
    assert load({}, {**KEY, **others}, file).auth == "header"


def test_every_variable_is_read() -> None:
    given_values = {
        "FASTN_BASE_URL": "http://127.0.0.1:9", "FASTN_AUTH": "bearer", "FASTN_SPACE_ID": "s", "FASTN_TENANT_ID": "t",
        "FASTN_END_ORG_ID": "o", "FASTN_ENV": "e", "FASTN_PROFILE": "p",
        "FASTN_MODE": "read-only", "FASTN_TOOLS": " customers , workflows,", "FASTN_UPDATE": "partial",
        "FASTN_DEADLINE": "5", "FASTN_APPROVAL_MINUTES": "1440",
    }  # fmt: skip
    settings = load({}, {**KEY, **given_values}, None)
    assert (settings.tools, settings.mode, settings.deadline) == (["customers", "workflows"], "read-only", 5.0)
    assert (settings.update, settings.approval_minutes) == ("partial", 1440)
    assert (settings.space_id, settings.tenant_id, settings.end_org_id, settings.env) == ("s", "t", "o", "e")
    assert {source.variable for source in SOURCES} >= given_values.keys() | KEY.keys()


def test_key_has_no_flag() -> None:
    assert {source.field: source.flag for source in SOURCES}["api_key"] is None


WRONG: dict[str, list[Any]] = {
    "api_key": ["", CANARY, "canary key", "canary\tkey", "canary\x00", "canaryä", 7],
    "base_url": [CANARY, "canary", "ftp://canary", "https://", "http://canary.example", "https://canary@h", 7],
    "auth": [CANARY, "canary", "Header"],
    "space_id": [CANARY, "canary\r", "canaryä"],
    "tenant_id": [CANARY],
    "end_org_id": [CANARY],
    "env": [CANARY],
    "mode": [CANARY, "unatended", "READ-ONLY"],
    "update": [CANARY, "canary"],
    "deadline": [CANARY, "0", "-1", "601", "nan", "inf"],
    "approval_minutes": [CANARY, "0", "1441", "10.5"],
    "webhook_url": [CANARY, "canary", "http://canary.example/x", "https://canary@h/x", "https://h/x#canary"],
    "webhook_secret": [CANARY, "canary", "canary-of-thirty-one-characters", "whsec_canary-that-is-not-base64!"],
    "notify": [CANARY, "canary", "https://", ["slack://x", "canary"], [7], 7],
    "ledger": [CANARY, "http://canary", "unix://canary"],
    "state_secret": [
        CANARY,
        "canary",
        "canary-of-thirty-one-characters",
        f"{'s' * 32},canary",
        f"{'s' * 32},{'s' * 32}",
    ],
    "approval_listen": [CANARY, "canary", "canary:", ":1", "canary:65536"],
    "approval_url": [CANARY, "canary", "http://canary.example", "https://h/?canary"],
    "test_mode": [CANARY, "canary", "true"],
    "ca_file": ["/canary/ca.pem", "/", "/dev/null", str(Path(__file__).with_name("world.py"))],
    "proxy": [
        *(CANARY, "canary proxy", "socks5://canary:1", "https://canary:1", "http://", "http://canary:x"),
        *("http://canary/x", "http://canary?x", "http://canary#x", 7),
    ],
    "fields": [CANARY, {"customers": CANARY}, {"customers": {"id": ""}}, {"custmers": {"id": "x"}}, {"customers": 1}],
    "routes": [CANARY, {"run_workflow": CANARY}, {"run_workflow": "canary"}, {"run_workflow": "GET canary"}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_value_names_its_setting_and_is_not_shown(name: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value}, {} if name == "api_key" else KEY, None)
    told = f"{caught.value}"
    assert told.startswith(f"The setting {name}")
    assert "\n" not in told
    assert "canary" not in told
    assert "hunter2" not in told
    assert "canary" not in repr(caught.value.data())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", [s.field for s in SOURCES if s.field in WRONG])
def test_wrong_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, {**KEY, f"FASTN_{name.upper()}": CANARY}, None)
    assert f"environment FASTN_{name.upper()}" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "toolsets"),
    [
        ({}, {*TOOLSETS}),
        ({"tools": ",".join(TOOLSETS)}, {*TOOLSETS}),
        ({"tools": "api-keys,users", "exclude_tools": "users"}, {"api_keys"}),
        ({"exclude_tools": "ai"}, {*TOOLSETS} - {"ai"}),
        ({"tools": "users", "exclude_tools": "users"}, set[str]()),
        ({"tools": "users,find"}, None),
        ({"tools": "users", "exclude_tools": "invite_*"}, None),
    ],
)
def test_names_of_toolsets_alone_are_known_without_the_catalog(
    chosen: dict[str, object], toolsets: set[str] | None
) -> None:
    assert load(chosen, KEY, None).toolsets == toolsets


def test_toolset_and_tool_never_share_a_name() -> None:
    assert not {*TOOLSETS} & {tool.tool_name() for tool in ALL_TOOLS}


@pytest.mark.parametrize("name", ["tools", "exclude_tools"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("find,delete_custmer", r"no tool or toolset 'delete_custmer' \(did you mean 'delete_customer'\?\)"),
        ("custmers", r"'custmers' \(did you mean 'customers'\?\)"),
        ("x*", "fits 'x\\*'"),
    ],
)
def test_unknown_tool_is_refused(name: str, names: str, message: str) -> None:
    """A tool that is misspelt must not stay in the list of an agent."""
    with pytest.raises(SettingsError, match=message):
        enabled_tools(load({name: names}, KEY, None))


@pytest.mark.parametrize("name", ["tools", "exclude_tools"])
def test_error_of_an_unknown_tool_says_where_it_is_set(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'mode = "guarded"\n{name} = "find,nothing"\n')
    with pytest.raises(
        SettingsError, match=rf"config.toml, line 2: the setting {name} is wrong: there is no tool or toolset 'no"
    ):
        settings_of({}, KEY, file, sandboxed=False)
    with pytest.raises(SettingsError, match=rf"{name} \(flag --{name.replace('_', '-')}\) is wrong"):
        settings_of({name: "nothing"}, KEY, None, sandboxed=True)


USERS = {operation.tool_name() for operation in CATALOG if operation.toolset() == "users"}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"tools": "run-workflow,get_cust*,find"}, {"find", "get_customer", "run_workflow"}),
        ({"tools": "users,find"}, {"find", *USERS}),
        (
            {"tools": "users,find", "exclude_tools": "*_user"},
            {"find", *(name for name in USERS if not name.endswith("_user"))},
        ),
        ({"tools": "users,delete_*,find", "mode": "read-only"}, {"find", *(USERS - {"invite_user"})}),
        ({"tools": "api-keys", "exclude_tools": "create_*,revoke-api-key"}, {"list_api_keys"}),
        ({"tools": "*user*,find", "exclude_tools": "users"}, {"find"}),
        ({"tools": "find,list_users", "exclude_tools": "find"}, {"list_users"}),
    ],
)
def test_settings_of_tools_combine(chosen: dict[str, object], left: set[str]) -> None:
    """docs/tools.md: names, patterns and toolsets add up, what is excluded is gone, and read-only holds for all."""
    assert {tool.tool_name() for tool in enabled_tools(load(chosen, KEY, None))} == left


@pytest.mark.parametrize(
    ("chosen", "setting"),
    [
        ({"exclude_tools": "update_*"}, "exclude_tools"),
        ({"tools": "update_customer", "exclude_tools": "update_*"}, "exclude_tools"),
        ({"tools": "list_*"}, "tools"),
        ({"tools": "procedures"}, "tools"),
        ({"exclude_tools": "customers"}, "exclude_tools"),
        ({"mode": "read-only"}, "mode"),
    ],
)
def test_setting_that_disables_a_tool_is_named(chosen: dict[str, object], setting: str) -> None:
    assert disabled_tools(load(chosen, KEY, None))["update_customer"] == setting


def test_settings_that_leave_no_tool_are_refused() -> None:
    with pytest.raises(SettingsError, match="leave no tool"):
        enabled_tools(load({"tools": "delete_*", "mode": "read-only"}, KEY, None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"api_key = ", ", at its end: not TOML"),
        (b'api_key = "canary\n"', ", line 1: not TOML"),
        (b"\xff\xfe", " is not text in UTF-8. Save it"),
        (b'a = 1\na = "canary"', ", at its end: not TOML"),
    ],
)
def test_invalid_file_is_named_and_not_quoted(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "fastn.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load({}, KEY, file)
    assert str(caught.value).startswith(f"{file}{message}")
    assert "canary" not in str(caught.value)


def test_missing_file_or_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no file"):
        load({}, KEY, tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot be read: "):
        load({}, KEY, tmp_path)


@pytest.mark.parametrize(
    "url",
    ["https://live.fastn.ai", "https://h:8443/base", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:9",
     "http://127.8.9.1", "HTTPS://H", "http://LOCALHOST:1"],
)  # fmt: skip
def test_https_and_loopback_addresses_are_accepted(url: str) -> None:
    assert load({"base_url": url}, KEY, None).base_url == url
    assert load({"base_url": url + "/"}, KEY, None).base_url == url


@pytest.mark.parametrize(
    "url",
    ["http://live.fastn.ai", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://0.0.0.0",
     "http://10.0.0.1", "http://[::]", "http://2130706433", "http://127.1", "http://evil@127.0.0.1", "http://localhost.",
     "https://user:secret@h", "https://user@h", "https://:secret@h", "https://h?a=1", "https://h#a", "https://h/?x",
     "//h", "h", "file:///etc/passwd", "javascript:1", "https://", "https:///path", "https://[::1", ""],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="The setting base_url"):
        load({"base_url": url}, KEY, None)


@given(host=st.text("0123456789.:localhost", max_size=15))
def test_loopback_is_recognized_by_name_and_address_only(host: str) -> None:
    if is_loopback(host):
        assert host == "localhost" or host.startswith("127.") or set(host) <= {"0", ":", "1"}


def test_routes_of_the_account_are_read(tmp_path: Path) -> None:
    text = 'api_key = "k"\n[routes]\nrun_workflow = "POST /api/v1/workflows/{workflow_id}/execute"\n'
    routes = load({}, {}, written(tmp_path, text)).routes
    assert routes == {"run_workflow": POST("/api/v1/workflows/{workflow_id}/execute")}
    assert Settings(api_key="k", routes=routes).routes == routes


SECRET = "a-secret-of-thirty-two-characters"
LEDGER = "valkey://fastn:p%40ssword@ledger:6379"


def test_file_with_a_password_or_state_secret_has_to_be_private(tmp_path: Path) -> None:
    """Environment or owner-only file, and never a flag or a repr."""
    for text in (f'ledger = "{LEDGER}"\n', f'state_secret = "{SECRET}"\n'):
        file = written(tmp_path, text)
        file.chmod(0o644)
        with pytest.raises(SettingsError, match="and users other than its owner can read it"):
            load({}, KEY, file)
        with pytest.raises(SettingsError, match="and users other than its owner can read it"):
            ledger_settings({}, {}, file)
        file.chmod(0o600)
        assert not {LEDGER, SECRET} & set(repr(load({}, KEY, file)).split("'"))
    file = written(tmp_path, 'ledger = "valkey://ledger:6379"\n')
    file.chmod(0o644)
    assert ledger_settings({}, {}, file).ledger == "valkey://ledger:6379"
    assert {s.field: s.flag for s in SOURCES if s.field in ("ledger", "state_secret")} == {
        "ledger": None,
        "state_secret": None,
    }


def test_values_to_be_redacted_in_logs_are_known() -> None:
    settings = load({}, {**KEY, "FASTN_LEDGER": LEDGER, "FASTN_STATE_SECRET": f"{SECRET}, {SECRET[::-1]}"}, None)
    assert {"p%40ssword", "p@ssword", SECRET, SECRET[::-1], "fsk_live_1"} <= set(settings.secrets)
    assert settings.state_secrets == [SECRET, SECRET[::-1]]
    assert settings.shares


def test_ledger_settings_need_no_key() -> None:
    assert ledger_settings({}, {}, None).ledger is None
    assert ledger_settings({}, {"FASTN_LEDGER": "sqlite:/tmp/l"}, None).ledger == "sqlite:/tmp/l"
    with pytest.raises(SettingsError, match="ledger"):
        ledger_settings({}, {"FASTN_LEDGER": "ftp://l"}, None)


def test_proxy_setting_overrides_the_environment() -> None:
    other = {**KEY, "HTTPS_PROXY": "http://other.example:3128/"}
    assert load({}, KEY, None).proxy is None
    assert load({}, other, None).proxy == "http://other.example:3128"
    assert load({}, {**other, "FASTN_PROXY": "proxy.example:3128"}, None).proxy == "http://proxy.example:3128"
    assert load({}, {**other, "FASTN_PROXY": "none"}, None).proxy is None
    assert load({}, {**other, "NO_PROXY": "fastn.ai"}, None).proxy is None
    assert load({}, {**other, "FASTN_BASE_URL": "http://127.0.0.1:9"}, None).proxy is None


def test_wrong_proxy_of_the_environment_is_named_by_its_variable() -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, {**KEY, "https_proxy": "socks5://canary:1"}, None)
    assert "environment https_proxy" in str(caught.value)
    assert "write none" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_certificates_and_field_names_are_read(tmp_path: Path) -> None:
    certificates = written(tmp_path, "-----BEGIN CERTIFICATE-----\n")
    settings = load({}, {**KEY, "FASTN_CA_FILE": str(certificates)}, None)
    assert settings.ca_file == certificates
    assert load({"fields": {"customers": {"id": "orgId"}}}, KEY, None).fields == {"customers": {"id": "orgId"}}
    assert "proxy" not in repr(load({}, {**KEY, "FASTN_PROXY": "http://jane:canary@p"}, None))


@pytest.mark.posix
def test_folders_are_known_without_home_only_by_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user database names a home too, which may be that of somebody else, such as root."""
    for folder, own, other in (
        (config_dir, "FASTN_CONFIG_DIR", "XDG_CONFIG_HOME"),
        (state_dir, "FASTN_STATE_DIR", "XDG_STATE_HOME"),
    ):
        for name in ("HOME", own, other):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(SettingsError, match=r"HOME is not set.*Set HOME; or FASTN_CONFIG_DIR"):
            folder(os.environ)
        for name, path in ((other, tmp_path / "fastn-mcp"), (own, tmp_path)):
            monkeypatch.setenv(name, str(tmp_path))
            assert folder(os.environ) == path or sys.platform == "darwin"
