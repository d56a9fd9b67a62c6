"""Profiles: which account is meant, which key is used, and what is never mixed up."""

import cProfile
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import JsonValue

from fastn_mcp.build.startup import SANDBOX_KEY, settings_of
from fastn_mcp.config.keys import NoKeyring, SystemKeyring
from fastn_mcp.config.load import load
from fastn_mcp.config.model import DEFAULT_BASE_URL, SECRETS, SOURCES, Trait, settings_with
from fastn_mcp.errors import NoKey, SettingsError
from fastn_mcp.guard.key_files import KeyFileWriter
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import CreateApiKey

Write = Callable[[str], Path]

BOTH = """\
base_url = "https://eu.fastn.example"
tenant_id = "t-0"
mode = "unattended"

[profiles.acme]
api_key_env = "ACME_KEY"
env = "live"
mode = "guarded"

[profiles.globex]
base_url = "https://us.fastn.example"
"""
ACME = {"ACME_KEY": "fsk_live_acme"}


@dataclass
class Kept(SystemKeyring):
    """A keyring that holds this."""

    entries: Mapping[str, str] = field(default_factory=dict[str, str])
    asked: list[str] = field(default_factory=list[str])

    def get(self, entry: str) -> str | None:
        self.asked.append(entry)
        return self.entries.get(entry)


class Nothing(Kept):
    """No keyring at all."""

    def get(self, entry: str) -> str | None:  # noqa: ARG002
        raise NoKeyring("This system has no usable keyring.")


@pytest.fixture
def file(tmp_path: Path) -> Write:
    """A configuration file that holds this, and that only its owner can read."""

    def file(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return path

    return file


def refused(
    path: Path, environment: Mapping[str, str] | None = None, keyring: Kept | None = None, profile: str | None = None
) -> str:
    """Return the error of a start that fails. It never holds a key."""
    with pytest.raises(SettingsError) as caught:
        load({"profile": profile}, environment or {}, path, keyring=keyring or Kept())
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- which account -----------------------------------------------------------------------------------------------


def test_profile_overrides_the_top_level_of_the_file(file: Write) -> None:
    settings = load({"profile": "acme"}, ACME, file(BOTH))
    assert (settings.profile, settings.api_key, settings.env) == ("acme", "fsk_live_acme", "live")
    assert (settings.mode, settings.host, settings.tenant_id) == ("guarded", "eu.fastn.example", "t-0")
    other = load({"profile": "globex"}, {}, file(BOTH), keyring=Kept({"globex at us.fastn.example": "k"}))
    assert (other.profile, other.mode, other.host, other.env) == ("globex", "unattended", "us.fastn.example", None)


def test_flag_overrides_the_environment_which_overrides_the_file(file: Write) -> None:
    three = "".join(f'[profiles.{name}]\napi_key_env = "K"\n' for name in ("a", "b", "c"))
    path = file(f'profile = "c"\n{three}')
    environment = {"K": "k", "FASTN_PROFILE": "b"}
    assert load({"profile": "a"}, environment, path).profile == "a"
    assert load({"profile": None}, environment, path).profile == "b"
    assert load({}, {"K": "k"}, path).profile == "c"


def test_profile_called_default_is_the_default_profile(file: Write) -> None:
    assert load({}, {}, file('env = "x"\n[profiles.default]\napi_key = "k"\nenv = "y"\n')).env == "y"


def test_top_level_is_the_account_if_no_profile_is_chosen(file: Write) -> None:
    """Adding a profile changes nothing for whoever sets FASTN_API_KEY."""
    settings = load({}, {"FASTN_API_KEY": "k"}, file(BOTH))
    assert (settings.profile, settings.api_key, settings.host) == ("default", "k", "eu.fastn.example")


@pytest.mark.parametrize(
    ("flags", "environment"), [({"profile": "acem"}, {}), ({}, {"FASTN_PROFILE": "acem"}), ({"profile": "acem"}, ACME)]
)
def test_unknown_profile_is_refused_with_the_known_ones(
    file: Write, flags: dict[str, str], environment: dict[str, str]
) -> None:
    message = refused(file(BOTH), {**environment, "FASTN_API_KEY": "k"}, profile=flags.get("profile"))
    assert message == (
        "There is no profile 'acem' (did you mean 'acme'?). Known: acme, globex. "
        "Correct the name, or add it: fastn-mcp login acem"
    )


def test_unknown_default_profile_is_named_with_its_line(file: Write) -> None:
    path = file(f'# mine\nprofile = "acne"\n{BOTH}')
    assert refused(path).startswith(f"{path}, line 2: There is no profile 'acne' (did you mean 'acme'?)")


def test_name_without_a_key_is_an_unknown_profile(file: Write) -> None:
    """ "There is no API key" led to a key that would be stored for another account."""
    with pytest.raises(NoKey, match=r"There is no profile 'nope'\. The configuration file has no profiles") as caught:
        load({"profile": "nope"}, {}, None)
    assert "fastn-mcp login nope" in str(caught.value)
    with pytest.raises(NoKey, match="There is no profile 'nope'"):
        load({}, {"FASTN_PROFILE": "nope"}, file('mode = "unattended"'))


def test_name_is_a_label_if_there_are_no_profiles(file: Write) -> None:
    assert load({"profile": "anything at all"}, {"FASTN_API_KEY": "k"}, file('env = "x"')).profile == "anything at all"
    assert load({"profile": "anything"}, {"FASTN_API_KEY": "k"}, None).profile == "anything"


def test_sandbox_uses_no_profile_key_or_host_of_the_file_and_the_environment(file: Write) -> None:
    path = file('profile = "acme"\n' + BOTH)
    own = {"FASTN_BASE_URL": "https://eu.example.com", "FASTN_AUTH": "bearer", "FASTN_TEST_MODE": "never"}
    settings = settings_of({}, ACME | own, path, sandboxed=True)
    assert (settings.profile, settings.env, settings.host) == ("sandbox", None, "localhost")
    assert (settings.auth, settings.test_mode) == ("header", "auto")
    assert (settings.api_key, settings.key_place) == (SANDBOX_KEY, "the sandbox")


# --- which key ---------------------------------------------------------------------------------------------------


def test_key_of_a_profile_is_inline_or_in_a_variable_a_file_or_the_keyring(file: Write, tmp_path: Path) -> None:
    (tmp_path / "k").touch(mode=0o600)
    (tmp_path / "k").write_text("in-file\n")
    path = file(
        '[profiles.a]\napi_key = "in-line"\n[profiles.b]\napi_key_env = "K"\n'
        '[profiles.c]\napi_key_file = "k"\n[profiles.d]\n'
    )
    ring = Kept({"d at live.fastn.ai": "in-ring"})
    loaded = [load({"profile": name}, {"K": "in-env"}, path, keyring=ring) for name in "abcd"]
    assert [(one.api_key, one.key_place) for one in loaded] == [
        ("in-line", f"{path}, line 2"),
        ("in-env", "environment K"),
        ("in-file", f"file {tmp_path / 'k'}"),
        ("in-ring", "keyring"),
    ]
    assert ring.asked == ["d at live.fastn.ai"]  # and of nothing else


def test_key_of_the_top_level_is_searched_after_the_environment(file: Write) -> None:
    path = file('api_key_env = "K"\n')
    assert load({}, {"FASTN_API_KEY": "first", "K": "second"}, path).api_key == "first"
    assert load({}, {"K": "second"}, path).api_key == "second"
    assert load({}, {}, None, keyring=Kept({"default at live.fastn.ai": "kept"})).api_key == "kept"
    assert load({"profile": "mine"}, {}, None, keyring=Kept({"mine at live.fastn.ai": "kept"})).api_key == "kept"


def test_stored_key_is_used_for_no_other_host(file: Write) -> None:
    ring = Kept({"globex at us.fastn.example": "canary"})
    assert load({"profile": "globex"}, {}, file(BOTH), keyring=ring).api_key == "canary"
    with pytest.raises(SettingsError) as caught:
        load({"profile": "globex", "base_url": "https://evil.example"}, {}, file(BOTH), keyring=ring)
    assert str(caught.value) == "The profile 'globex' has no key for evil.example. Store one: fastn-mcp login globex"


def test_profile_never_uses_the_key_of_the_top_level(file: Write) -> None:
    path = file('api_key = "canary"\n[profiles.acme]\n')
    assert "The profile 'acme' has no key for live.fastn.ai." in refused(path, profile="acme")


@pytest.mark.parametrize("by", ["flag", "environment", "file"])
def test_key_in_the_environment_beside_a_profile_is_refused(file: Write, by: str) -> None:
    """Neither is that key sent as the profile, nor is it passed over in silence."""
    path = file(('profile = "acme"\n' if by == "file" else "") + BOTH)
    environment = {**ACME, "FASTN_API_KEY": "canary"} | ({"FASTN_PROFILE": "acme"} if by == "environment" else {})
    message = refused(path, environment, profile="acme" if by == "flag" else None)
    assert message.startswith("FASTN_API_KEY is set, and the profile 'acme' is another account")
    assert 'Unset FASTN_API_KEY, or write api_key_env = "FASTN_API_KEY" in [profiles.acme].' in message


def test_profile_can_name_the_key_of_the_environment_as_its_own(file: Write) -> None:
    path = file('[profiles.acme]\napi_key_env = "FASTN_API_KEY"\n')
    assert load({"profile": "acme"}, {"FASTN_API_KEY": "k"}, path).api_key == "k"


@pytest.mark.parametrize("name", settings_with(Trait.ACCOUNT))
def test_variable_that_sends_the_key_of_a_profile_elsewhere_is_refused(file: Write, name: str) -> None:
    """A key never goes to another origin. A flag is believed for headers, and moves no stored key."""
    value = "https://elsewhere.example"
    variable = next(source.variable for source in SOURCES if source.field == name)
    message = refused(file(BOTH), {**ACME, variable: value}, profile="acme")
    assert message.startswith(f"{variable} is set, and the profile 'acme' is another account")
    flags, variables = {"profile": "acme", name: value}, {**ACME, variable: "https://x.example"}
    if name == "base_url":
        with pytest.raises(SettingsError, match=r"and is not sent to elsewhere\.example"):
            load(flags, variables, file(BOTH))
    else:
        assert getattr(load(flags, variables, file(BOTH)), name)
    same = {"base_url": "https://eu.fastn.example/", "tenant_id": "t-0"}
    if name in same:
        assert load({"profile": "acme"}, {**ACME, variable: same[name]}, file(BOTH)).profile == "acme"


def test_missing_key_names_the_next_command(file: Write) -> None:
    assert refused(file("")) == (
        "There is no API key. Set FASTN_API_KEY (Fastn dashboard: Settings > API keys), or store one: "
        "fastn-mcp login. Without an account: fastn-mcp --sandbox"
    )
    assert "fastn-mcp login --file" in refused(file(""), keyring=Nothing())
    assert refused(file(BOTH)) == (
        "There is no API key, and no profile is chosen. Known: acme, globex. "
        'Choose one by --profile or FASTN_PROFILE, or at the top of the file: profile = "NAME"'
    )
    assert refused(file(BOTH), keyring=Nothing(), profile="globex") == (
        "The profile 'globex' has no key for us.fastn.example. This system has no usable keyring. "
        "Store one: fastn-mcp login globex --file"
    )
    path = file(BOTH)
    message = refused(path, profile="acme")
    assert message == f"{path}, line 6: the key comes from ACME_KEY, which is not set. Set ACME_KEY."


@pytest.mark.parametrize("key", ["canary key", "canary\nX: y", "canary\xe4"])
def test_malformed_key_is_reported_with_its_place_and_not_shown(file: Write, key: str) -> None:
    assert "(environment ACME_KEY) is wrong" in refused(file(BOTH), {"ACME_KEY": key}, profile="acme")
    kept = Kept({"globex at us.fastn.example": key})
    message = refused(file(BOTH), keyring=kept, profile="globex")
    assert message.startswith("The setting api_key (keyring) is wrong")
    assert message.endswith("Copy the whole key, and nothing else.")


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_key_file_that_others_can_read_is_refused(file: Write, tmp_path: Path, mode: int) -> None:
    (tmp_path / "k").write_text("canary")
    (tmp_path / "k").chmod(mode)
    assert f"Run: chmod 600 {tmp_path / 'k'}" in refused(file('api_key_file = "k"'))


@pytest.mark.parametrize("issued", [{"key": "fsk_test_1"}, {"key": "fsk_test_1", "apiKey": {"value": "other"}}])
def test_key_file_that_the_server_wrote_is_read(file: Write, tmp_path: Path, issued: dict[str, JsonValue]) -> None:
    KeyFileWriter(tmp_path)(CreateApiKey(name="k"), FastnObject.model_validate({"id": "k", **issued}))
    assert load({}, {}, file('api_key_file = "k.txt"')).api_key == "fsk_test_1"


def test_missing_or_empty_key_file_is_named(file: Write, tmp_path: Path) -> None:
    path = file('[profiles.a]\napi_key_file = "k"')
    assert refused(path, profile="a").startswith(f"{path}, line 2: there is no file {tmp_path / 'k'}.")
    (tmp_path / "k").touch(mode=0o600)
    assert f"(file {tmp_path / 'k'}) is wrong: it is empty" in refused(path, profile="a")
    (tmp_path / "k").unlink()
    (tmp_path / "k").mkdir()
    assert "cannot be read: Is a directory" in refused(path, profile="a")


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[profiles.acme]\nevn = 1", 2, "there is no setting 'evn' in [profiles.acme] (did you mean 'env'?)"),
        ("[profiles.acme]\nprofile = 'x'", 2, "there is no setting 'profile' in [profiles.acme]"),
        ("\n[profile.acme]\nenv = 'x'", 2, "the table of a profile is [profiles.NAME], with an s"),
        ("[profils.acme]\nenv = 'x'", 1, "there is no setting 'profils' (did you mean 'profiles'?)"),
        ("profiles = 1", 1, "profiles are tables, for example [profiles.acme]"),
        ("[profiles]\nacme = 1", 2, "a profile is a table, for example [profiles.acme]"),
        ('[profiles."a b"]', 1, "'a b' is not a valid profile name"),
        ('[profiles."a at h"]', 1, "'a at h' is not a valid profile name"),
        ('[profiles.""]', 1, "'' is not a valid profile name"),
        ("[profiles.a]\napi_key_env = 'K'\napi_key_file = 'k'", 3, "api_key_env and api_key_file are two API keys"),
        ("api_key = 'canary'\napi_key_env = 'K'", 2, "api_key and api_key_env are two API keys for one account"),
        ("api_key_env = 1", 1, "api_key_env must be the name of a variable"),
        ("api_key_env = ['K']", 1, "api_key_env must be the name of a variable"),
        ("api_key_file = 1", 1, "api_key_file must be the path of a file"),
        ("# mine\n\nmode = 'canary'\n[profiles.acme]", 3, "the setting mode is wrong"),
        ("zzz = 1", 1, "there is no setting 'zzz'"),
        ("api_kye = 'canary'", 1, "there is no setting 'api_kye' (did you mean 'api_key'?)"),
        ("profile = 'a'\n[profiles.a]\n\nmode = 'canary'", 4, "the setting mode is wrong"),
        ("profile = 'a'\ndeadline = 'canary'\n[profiles.a]", 2, "the setting deadline is wrong"),
    ],
)
def test_mistake_in_the_file_is_named_with_its_line(file: Write, text: str, line: int, message: str) -> None:
    path = file(text)
    told = refused(path)
    assert told.startswith(f"{path}, line {line}: ")
    assert message in told


@pytest.mark.posix
@pytest.mark.parametrize("where", ["", "[profiles.acme]\n"])
@pytest.mark.parametrize("secret", sorted({*SECRETS} - {"ledger"}))  # a ledger is one where its URL has a password
def test_file_with_a_secret_has_to_be_private(file: Write, secret: str, where: str) -> None:
    path = file(f'{where}{secret} = "canary"')
    path.chmod(0o644)
    assert refused(path) == f"{path} holds {secret}, and users other than its owner can read it. Run: chmod 600 {path}"
    path.write_text('[profiles.acme]\nenv = "x"\n')
    assert load({}, {"FASTN_API_KEY": "k"}, path).api_key == "k"


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_can_change_is_refused(file: Write, mode: int) -> None:
    path = file(BOTH)
    path.chmod(mode)
    assert refused(path) == f"{path} can be changed by users other than its owner. Run: chmod go-w {path}"


@pytest.mark.posix
def test_null_device_is_an_empty_configuration() -> None:
    """FASTN_CONFIG=/dev/null is how one starts without the user's own."""
    assert stat.S_IMODE(Path(os.devnull).stat().st_mode) & 0o022
    assert load({}, {"FASTN_API_KEY": "k"}, Path(os.devnull)).base_url == DEFAULT_BASE_URL


def test_path_in_the_file_is_relative_to_its_folder(
    file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never in the working directory, which may be a cloned repository."""
    away = tmp_path / "cloned"
    away.mkdir()
    monkeypatch.chdir(away)
    path = file('[profiles.acme]\napi_key_env = "K"\npolicy = "acme.toml"\nplan = "~/plan.toml"\nreport = "/r.json"\n')
    settings = load({"profile": "acme"}, {"K": "k"}, path)
    assert (settings.policy, settings.plan, settings.report) == (
        tmp_path / "acme.toml", Path("~/plan.toml").expanduser(), Path("/r.json"),
    )  # fmt: skip
    assert load({"profile": "acme", "policy": "x.toml"}, {"K": "k"}, path).policy == Path("x.toml")


def test_cost_of_loading_grows_linearly_with_the_profiles(tmp_path: Path) -> None:
    """Nothing grows faster than its work. Counted in calls of functions, not in time."""

    def calls(profiles: int) -> int:
        path = tmp_path / f"{profiles}.toml"
        tables = (f'[profiles.p{n}]\nbase_url = "https://p{n}.example"\napi_key_env = "K"\n' for n in range(profiles))
        path.write_text("".join(tables), encoding="utf-8")
        path.chmod(0o600)
        profiler = cProfile.Profile()
        profiler.runcall(load, {"profile": "p0"}, {"K": "fsk_live_1"}, path)
        return sum(entry.callcount for entry in profiler.getstats())

    calls(1)  # what is made once is made here
    assert calls(220) - calls(120) < 1.05 * (calls(120) - calls(20))
