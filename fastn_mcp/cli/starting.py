"""The settings of this start, and what can be said to a client before anything else is loaded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fastn_mcp.introduction import Introduction
from fastn_mcp.settings import Resolved, Settings, config_dir, resolve

SANDBOX_KEY = "fsk_test_sandbox"


def resolved_of(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None, *, sandboxed: bool
) -> Resolved:
    """The settings of this start, and where the key comes from. Raises `SettingsError`."""
    if not sandboxed:
        return resolve(flags, environment, file)
    # The sandbox is an account of its own: a real key or host in the environment must not reach it, nor name it.
    own = {"FASTN_API_KEY", "FASTN_BASE_URL", "FASTN_AUTH", "FASTN_TEST_MODE"}
    kept = {name: value for name, value in environment.items() if name not in own}
    there = {"api_key": SANDBOX_KEY, "base_url": "http://localhost", "profile": "sandbox"}
    return replace(resolve({**flags, **there}, kept, file, sandbox=True), key="the sandbox")


def policy_file(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """The policy file of the settings, or the user's own where there is one."""
    own = config_dir(environment) / "policy.toml"
    return settings.policy or (own if own.exists() else None)


def introduction_of(settings: Settings, environment: Mapping[str, str]) -> Introduction | None:
    """What a client can be told at once; None where the rest has to be looked at first, since it may stop the start."""
    named = (
        settings.plan,
        settings.webhook_url,
        settings.report,
        settings.log_file,
        policy_file(settings, environment),
    )
    if any(value is not None for value in named):
        return None
    reads_only = settings.read_only or settings.mode == "read-only"
    return Introduction(settings.toolsets, reads_only=reads_only, attended=settings.mode != "unattended")
