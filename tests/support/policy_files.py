"""Policy files of a test, which only their owner can read."""

from pathlib import Path

from fastn_mcp.policy.policy_file import load_rules
from fastn_mcp.policy.rules import FileRules

PROTECTING = """
[[protect]]
customer = "northwind-*"
then = "deny"
reason = "our largest customer; ask Dana first"

[[rule]]
tool = "invite_user"
when = { email = "*@partner.example" }
then = "deny"

[[window]]
effects = ["destroy"]
open = ["Mon-Sun 07:00-23:00 Europe/London"]
"""
"""A rule of each kind that limits what agents may do. Budgets and defaults may follow."""


def policy_file(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def rules_of(folder: Path, text: str) -> FileRules:
    return load_rules(policy_file(folder, text))
