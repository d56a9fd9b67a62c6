"""Policy files of a test, which only their owner can read."""

from pathlib import Path

from fastn_mcp.policy.policy_file import load_rules
from fastn_mcp.policy.rules import FileRules


def policy_file(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def rules_of(folder: Path, text: str) -> FileRules:
    return load_rules(policy_file(folder, text))
