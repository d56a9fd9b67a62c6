"""The policies of the cookbook do what stands under them."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastn_mcp.cli.program import cli

POLICY_PAGE = Path(__file__).parents[2] / "docs" / "policy-cookbook.md"
RECIPES = {
    section.partition("\n")[0]: section
    for section in POLICY_PAGE.read_text(encoding="utf-8").partition("\n## Testing a policy\n")[0].split("\n## ")[1:]
    if "```toml" in section
}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def test_recipe_has_one_policy_and_one_console_block() -> None:
    assert len(RECIPES) >= 8
    for section in RECIPES.values():
        assert (len(blocks(section, "toml")), len(blocks(section, "console"))) == (1, 1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_valid_and_explains_calls_as_written(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (policy,), (console,) = (blocks(RECIPES[recipe], language) for language in ("toml", "console"))
    file = tmp_path / "policy.toml"
    file.write_text(policy)
    file.chmod(0o600)
    runner = CliRunner(env={"FASTN_CONFIG_DIR": str(tmp_path), "FASTN_STATE_DIR": str(tmp_path / "state")})
    checked = runner.invoke(cli, ["policy", "check", "policy.toml"])
    assert (checked.exit_code, checked.output.splitlines()[-1]) == (0, "policy.toml is valid.")
    asked = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    assert asked
    for each in asked:
        command, *said = each.splitlines()
        program, *arguments = shlex.split(command)
        assert (program, arguments[-2:]) == ("fastn-mcp", ["--file", "policy.toml"])
        explained = runner.invoke(cli, arguments)
        assert [line for line in explained.output.splitlines() if line.startswith(("Decision:", "Rule:"))] == said
