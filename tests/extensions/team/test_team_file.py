"""Valid and invalid team files. Parsing is strict; errors name the line and the nearest key."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.identity_provider import AUDIENCE, ISSUER
from support.team_world import HEAD, TENANTS, TeamWorld, written

from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.team.team_config import Team, load_team
from fastn_mcp.guard.key_files import KeyFileWriter
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import CreateApiKey

ONE = '[[tenant]]\nname = "acme"\nsubjects = ["anna"]\napi_key_env = "ACME_KEY"\n'


def loaded(folder: Path, text: str) -> Team:
    return load_team(written(folder, text))


def test_defaults_are_strict(tmp_path: Path) -> None:
    team = loaded(tmp_path, f'url = "{AUDIENCE}"\nissuer = "{ISSUER}"\n{ONE}')
    assert (team.trust.audience, team.trust.leeway) == (AUDIENCE, 30.0)
    assert (team.served_hosts, team.origins) == (["fastn-mcp.example.com"], [])
    assert (team.limits.body_bytes, team.limits.calls, team.limits.queue) == (1024 * 1024, 8, 32)
    assert not [name for name in team.trust.algorithms if name.startswith("HS") or name == "none"]
    (tenant,) = team.tenant
    settings = tenant.settings({"ACME_KEY": "fsk_live_acme", "FASTN_MODE": "unattended", "FASTN_API_KEY": "no"}, None)
    assert (settings.mode, settings.profile, settings.api_key) == ("read-only", "acme", "fsk_live_acme")


@pytest.mark.parametrize("source", ["env", "file"])
def test_urls_of_notifications_are_read_as_a_secret(tmp_path: Path, source: str) -> None:
    urls = "slack://a/b/c\nmailtos://h.example/?to=x@h.example,y@h.example"
    (tmp_path / "urls").write_text(f"{urls}\n")
    (tenant,) = loaded(tmp_path, f'url = "{AUDIENCE}"\nissuer = "{ISSUER}"\n{ONE}notify_{source} = "urls"\n').tenant
    settings = tenant.settings({"ACME_KEY": "k", "FASTN_NOTIFY": "ntfy://no"} | {"urls": urls}, None)
    assert settings.notify == urls.split("\n")


def test_every_key_is_parsed(tmp_path: Path) -> None:
    text = f"""
url = "https://mcp.example.com:8443/fastn/mcp"
issuer = "{ISSUER}"
audience = "api://fastn"
hosts = ["mcp.example.com:8443", "10.0.0.7:8080"]
origins = ["https://app.example.com"]
algorithms = ["ES256"]
groups_claim = "roles"
subject_claim = "oid"
scope_prefix = "api://fastn/"
initial_scopes = ["fastn:read", "fastn:write"]
leeway_seconds = 5
[limits]
body_bytes = 2048
calls = 2
drain_seconds = 3.5
[[tenant]]
name = "acme"
subjects = "anna"
groups = ["a", "b"]
claims = {{ hd = "acme.com", tier = ["gold", "silver"] }}
api_key_file = "secrets/acme"
webhook_secret_env = "HOOK"
policy = "acme.toml"
mode = "guarded"
tools = ["customers"]
deadline = 10
"""
    team = loaded(tmp_path, text)
    assert (team.trust.audience, team.trust.algorithms, team.groups_claim) == ("api://fastn", ("ES256",), "roles")
    assert (team.trust.scope_prefix, team.trust.subject_claim) == ("api://fastn/", "oid")
    assert team.requested_scopes(team.initial_scopes) == ["api://fastn/fastn:read", "api://fastn/fastn:write"]
    assert (team.limits.body_bytes, team.limits.calls, team.limits.drain_seconds) == (2048, 2, 3.5)
    assert team.limits.grace_seconds == 20.0
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "acme").write_text("fsk_live_acme\n")
    settings = team.tenant[0].settings({"HOOK": "h" * 32}, None)
    assert (settings.api_key, settings.webhook_secret, settings.policy) == (
        "fsk_live_acme",
        "h" * 32,
        tmp_path / "acme.toml",
    )
    assert (settings.mode, settings.tools, settings.deadline) == ("guarded", ["customers"], 10.0)


def test_example_is_valid(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples" / "team.toml"
    team = loaded(tmp_path, example.read_text(encoding="utf-8"))
    admins = team.tenant_of({"groups": ["fastn-admins"], "hd": "acme.com", "email_verified": True})
    others = team.tenant_of({"groups": [], "hd": "acme.com", "email_verified": True})
    assert admins is not None
    assert others is not None
    assert (admins.name, others.name, len(team.tenant)) == ("acme-admins", "acme", 3)


GOOD = f'url = "{AUDIENCE}"\nissuer = "{ISSUER}"\n'
PAGE = GOOD + '[approvals]\nclient_id = "p"\nclient_secret_env = "PAGE"\n'
APPROVER = PAGE + '[[approvals.approver]]\ngroups = ["a"]\n'
WRONG: dict[str, tuple[str, str]] = {
    "no tenant": (GOOD, "the file needs the key 'tenant'"),
    "an empty list": (GOOD + "tenant = []", "it has no [[tenant]]"),
    "one table": (GOOD + "[tenant]\nname = 'a'", "each tenant is a table of its own, for example [[tenant]]"),
    "no address": (f'issuer = "{ISSUER}"\n{ONE}', "the file needs the key 'url'"),
    "a misspelt key": (
        GOOD + 'isuer = "x"\n' + ONE,
        "line 3: there is no key 'isuer' in the file (did you",
    ),
    "a key that must be there, misspelt": (PAGE.replace("client_id", "clientid") + ONE, "(did you mean 'client_id'?)"),
    "a key of another table": (
        GOOD + "effect = 'x'\n" + ONE,
        "the file (did you mean 'effects' in [approvals.step_up]?)",
    ),
    "a misspelt limit": (GOOD + "[limits]\ncall = 1\n" + ONE, "line 4: there is no key 'call' in [limits]"),
    "a limit that is none": (GOOD + "[limits]\ncalls = 0\n" + ONE, "line 4: calls: must be greater"),
    "a limit that is text": (GOOD + '[limits]\ncalls = "8"\n' + ONE, "line 4: calls: must be a whole number"),
    "plain http": (GOOD.replace("https://fastn", "http://fastn") + ONE, "line 1: url: must be https"),
    "no path": (GOOD.replace("/mcp", "") + ONE, "line 1: url: must have a path"),
    "a slash at the end": (GOOD.replace("/mcp", "/mcp/") + ONE, "line 1: url: must have a path, and no slash"),
    "a host in capitals": (
        GOOD.replace("fastn-mcp.", "Fastn."),
        "line 1: url: must begin with https://fastn.example.com",
    ),
    "a default port": (GOOD.replace(".com/mcp", ".com:443/mcp"), "url: must begin with https://fastn-mcp.example.com,"),
    "an origin in capitals": (
        GOOD + 'origins = ["https://A.example"]\n' + ONE,
        "origins: 'https://A.example' must be an exact origin",
    ),
    "a query": (GOOD.replace("/mcp", "/mcp?x") + ONE, "line 1: url: must be scheme, host"),
    "an issuer without TLS": (GOOD.replace("https://login", "http://login") + ONE, "line 2: issuer: must be https"),
    "a scope prefix with a space": (
        GOOD + 'scope_prefix = "api:// x"\n' + ONE,
        "line 3: scope_prefix: 'api:// x' must be the",
    ),
    "an unknown scope": (
        GOOD + 'initial_scopes = ["fastn:read", "fastn:wirte"]\n' + ONE,
        "line 3: initial_scopes: unknown scope 'fastn:wirte' (did you mean 'fastn:write'?)",
    ),
    "no scope to read": (GOOD + 'initial_scopes = ["fastn:write"]\n' + ONE, "initial_scopes: must include fastn:read"),
    "a blank subject": (GOOD + 'subject_claim = " "\n' + ONE, "line 3: subject_claim: ' ' must be a non-empty text"),
    "a host with a wildcard": (
        GOOD + 'hosts = ["a.example.com", "*.example.com"]\n' + ONE,
        "line 3: hosts: '*.example.com' must be an exact",
    ),
    "a host with any port": (GOOD + 'hosts = ["example.com:*"]\n' + ONE, "must be an exact host"),
    "an origin with a path": (GOOD + 'origins = ["https://a.example/"]\n' + ONE, "must be an exact origin"),
    "every origin": (GOOD + 'origins = ["*"]\n' + ONE, "origins: '*' must be an exact origin"),
    "a shared secret": (
        GOOD + 'algorithms = ["HS256"]\n' + ONE,
        "unknown algorithm 'HS256' (did you mean 'RS256'?); use any of RS256",
    ),
    "no algorithm": (GOOD + "algorithms = []\n" + ONE, "line 3: algorithms: must not be empty"),
    "no name": (GOOD + ONE.replace('name = "acme"\n', ""), "[[tenant]] needs the key 'name'"),
    "a name that is a path": (
        GOOD + ONE.replace("acme", "../acme"),
        "name: '../acme' must be at most 32 small letters",
    ),
    "nobody": (GOOD + ONE.replace('subjects = ["anna"]\n', ""), "needs subjects, groups or claims"),
    "a misspelt condition": (
        GOOD + ONE.replace("subjects", "sbujects"),
        "line 5: there is no key 'sbujects' in [[tenant]] (did you mean 'subjects'?)",
    ),
    "an empty match": (GOOD + ONE.replace('["anna"]', "[]"), "line 5: subjects: must not be empty"),
    "an empty subject": (GOOD + ONE.replace("anna", " "), "must be a non-empty text"),
    "a subject that is a pattern": (GOOD + ONE.replace("anna", "an*"), "line 5: subjects: they are exact"),
    "a subject that is a number": (GOOD + ONE.replace('["anna"]', "[7]"), "line 5: subjects: must be a text"),
    "two of a name": (GOOD + ONE + ONE, "there are two tenants named acme"),
    "no key": (GOOD + ONE.replace('api_key_env = "ACME_KEY"\n', ""), "the tenant acme needs a key"),
    "a key": (GOOD + ONE + 'api_key = "fsk_live_C4N4RY"\n', "line 7: api_key must not be in this file"),
    "two keys": (GOOD + ONE + 'api_key_file = "x"\n', "api_key_file and api_key_env are both given"),
    "a key of two": (GOOD + ONE + "caller_keys = true\n", "line 7: with caller_keys, callers bring their own keys"),
    "a webhook of many": (
        GOOD + ONE.replace('api_key_env = "ACME_KEY"', 'caller_keys = true\nwebhook_url = "https://h.example"'),
        "approvers belong to one account",
    ),
    "a secret": (GOOD + ONE + 'notify = ["slack://x"]\n', "must not be in this file: give notify_file or notify_env"),
    "a removed setting": (GOOD + ONE + 'notify_url = "https://x"\n', "line 7: notify_url was removed. Give the URL of"),
    "a removed secret": (GOOD + ONE + 'notify_secret_env = "X"\n', "line 7: notify_secret_env was removed."),
    "a setting of the process": (GOOD + ONE + 'log_level = "debug"\n', "there is no key 'log_level' in [[tenant]]"),
    "a setting with a bad value": (GOOD + ONE + 'mode = "C4N4RY"\n', "line 7: mode: must be 'read-only', 'guarded' or"),
    "approvals without a client": (GOOD + "[approvals]\n" + ONE, "line 3: [approvals] needs the key 'client_id'"),
    "approvals without a secret": (GOOD + '[approvals]\nclient_id = "p"\n' + ONE, "needs client_secret_file or"),
    "approvers without a client": (
        GOOD + "[approvals]\nown = true\n[[approvals.approver]]\ngroups = 'g'\n" + ONE,
        "line 3: [approvals] needs the key 'client_id'",
    ),
    "an unknown effect of own": (PAGE + 'own = ["destory"]\n' + ONE, "own: unknown effect 'destory' (did you mean"),
    "own of another type": (PAGE + "own = 3\n" + ONE, "own: must be true, false or a list of effects"),
    "a misspelt key of approvals": (PAGE + "onw = true\n" + ONE, "line 6: there is no key 'onw' in [approvals] (did"),
    "a page that is MCP": (PAGE + f'url = "{AUDIENCE}/page"\n' + ONE, "line 6: url: /mcp/page is already used"),
    "a page for probes": (PAGE + f'url = "{AUDIENCE[:-4]}/readyz"\n' + ONE, "url: /readyz is already used"),
    "no openid": (PAGE + 'scopes = ["profile"]\n' + ONE, "line 6: scopes: must include openid"),
    "an approver who is nobody": (PAGE + "[[approvals.approver]]\n" + ONE, "line 6: an approver needs subjects"),
    "an approver of no tenant": (
        APPROVER + 'tenants = ["acmee"]\n' + ONE,
        "line 8: tenants: there is no tenant 'acmee'",
    ),
    "an approver of no effect": (APPROVER + 'effects = ["EVIL"]\n' + ONE, "line 8: effects: unknown effect 'EVIL'"),
    "a misspelt key of an approver": (APPROVER + "tenant = 1\n" + ONE, "in [[approvals.approver]] (did you"),
    "no TOML": (GOOD + "[[tenant", "not TOML"),
}


@pytest.mark.parametrize("what", WRONG)
def test_error_names_its_line(what: str, tmp_path: Path) -> None:
    text, message = WRONG[what]
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, text)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'team.toml'}, ")
    assert "C4N4RY" not in str(raised.value)


def test_wrong_setting_of_a_tenant_is_not_said_to_come_from_a_flag(tmp_path: Path) -> None:
    team = loaded(tmp_path, GOOD + ONE + "mode = 'guarded'\n")
    settings = team.tenant[0].settings({"ACME_KEY": "fsk_live_acme"}, None)
    assert str(settings.error("mode", "it is odd")) == "The setting mode is wrong: it is odd."


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_writable_by_others_is_rejected(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD + ONE)
    file.chmod(0o620)
    with pytest.raises(SettingsError, match="can be changed by users other than its owner"):
        load_team(file)


MATCHES: list[tuple[str, dict[str, Any], bool]] = [
    ('subjects = ["anna"]', {"sub": "anna"}, True),
    ('subjects = ["anna"]', {"sub": "Anna"}, False),
    ('claims = { sub = "an*" }', {"sub": "anna"}, True),
    ('groups = ["ops"]', {"groups": ["dev", "ops"]}, True),
    ('groups = ["ops"]', {"groups": "ops"}, True),
    ('groups = ["ops"]', {"groups": ["OPS", "ops2", "xops", 7]}, False),
    ('groups = ["acme-*"]', {"groups": ["acme-ops"]}, True),
    ('groups = ["acme-*"]', {"groups": ["not-acme-ops"]}, False),
    ('groups = ["a.c[x]?"]', {"groups": ["abcx?", "a.cx1"]}, False),
    ('groups = ["ops"]', {}, False),
    ('claims = { hd = "acme.com" }', {"hd": "acme.com"}, True),
    ('claims = { hd = "acme.com", verified = "true" }', {"hd": "acme.com"}, False),
    ('claims = { hd = "acme.com", verified = "true" }', {"hd": "acme.com", "verified": True}, True),
    ('claims = { level = ["7", "8"] }', {"level": 7}, True),
    ('claims = { level = "7" }', {"level": {"7": "7"}}, False),
    ('subjects = ["anna"]\ngroups = ["ops"]', {"sub": "anna", "groups": ["dev"]}, False),
    ('subjects = ["anna"]\ngroups = ["ops"]', {"sub": "anna", "groups": ["ops"]}, True),
]


@pytest.mark.parametrize(("wanted", "claims", "holds"), MATCHES)
def test_tenant_requires_all_its_conditions(wanted: str, claims: dict[str, Any], holds: bool, tmp_path: Path) -> None:
    team = loaded(tmp_path, GOOD + ONE.replace('subjects = ["anna"]', wanted))
    assert (team.tenant_of(claims) is not None) is holds


def test_first_matching_tenant_serves(tmp_path: Path) -> None:
    team = loaded(tmp_path, HEAD + TENANTS)
    claims = {"sub": "anna", "groups": ["globex-ops"], "tier": "own"}
    assert [tenant.name for tenant in team.tenant if team.tenant_of(claims) is tenant] == ["acme"]
    assert team.named("globex") is team.tenant[1]
    assert team.named("nobody") is None


KEYLESS: dict[str, tuple[str, str]] = {
    "a variable": ('api_key_env = "NO_SUCH"', "The variable NO_SUCH is not set."),
    "a file": ('api_key_file = "no-such"', "no-such cannot be read: FileNotFoundError."),
    "an empty file": ('api_key_file = "empty"', "empty is empty. Write the secret into it."),
    "a file of bytes": ('api_key_file = "bytes"', "bytes cannot be read: UnicodeDecodeError."),
    "a key that is none": ('api_key_env = "BROKEN"', "holds a space, a line break"),
    "a path that none can be": ('api_key_file = "a\\u0000"', "cannot be read: ValueError."),
    "a policy that is not there": ('api_key_env = "ACME_KEY"\npolicy = "no.toml"', "There is no policy file"),
}


@pytest.mark.parametrize("what", KEYLESS)
def test_tenant_with_invalid_settings_stops_the_start(what: str, tmp_path: Path) -> None:
    message, problem = KEYLESS[what]
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    text = HEAD + ONE.replace('api_key_env = "ACME_KEY"', message)
    environment = {"ACME_KEY": "fsk_test_1", "BROKEN": "fsk C4N4RY"}
    team = TeamWorld(tmp_path, text, environment=environment)
    with pytest.raises(SettingsError) as raised:
        team.opening.check()
    assert problem in str(raised.value)
    assert "C4N4RY" not in str(raised.value)


def test_key_file_that_the_server_wrote_is_read(tmp_path: Path) -> None:
    KeyFileWriter(tmp_path)(CreateApiKey(name="k"), FastnObject.model_validate({"id": "k", "key": "fsk_test_1"}))
    team = loaded(tmp_path, HEAD + ONE.replace('api_key_env = "ACME_KEY"', 'api_key_file = "k.txt"'))
    assert team.tenant[0].settings({}, None).api_key == "fsk_test_1"


def test_tenants_with_one_account_stop_the_start(tmp_path: Path) -> None:
    """Approvals and budgets belong to an account, so two tenants must not share one."""
    twin = ONE.replace('"acme"', '"b"') + 'profile = "acme"\n'
    team = TeamWorld(tmp_path, HEAD + ONE + twin)
    with pytest.raises(SettingsError, match="The tenants acme and b use the same account, acme at"):
        team.opening.check()
    TeamWorld(tmp_path, HEAD + ONE + twin + 'env = "live"\n').opening.check()
