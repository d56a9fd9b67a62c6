"""Policy files of a test, which only their owner can read."""

from pathlib import Path

from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.policy_file import load_rules
from fastn_mcp.policy.rules import FileRules
from fastn_mcp.tools.tool import Effect

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


def _of_defaults(**decisions: Decision) -> FileRules:
    """Return rules as of a policy file that has only these defaults, by effect."""
    defaults = {("", Effect(name)): PolicyDecision(then, f"default {name}") for name, then in decisions.items()}
    return FileRules(digest=",".join(decisions), defaults=defaults)


CONFIRMS = '[defaults]\nwrite = "confirm"\n'
"""Policy file under which a person is asked before every change."""

ALLOWS = '[defaults]\nexternal = "allow"\nspend = "allow"\n'
"""Policy file under which a person is asked only about access, moves to Trash and what destroys."""

CONFIRMING = _of_defaults(write=Decision.CONFIRM)
ALLOWING = _of_defaults(external=Decision.ALLOW, spend=Decision.ALLOW)
