"""What the pages of the tools say, made of the catalogue, with answers of the sandbox at one fixed moment."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

TESTS = Path(__file__).parents[2] / "tests"
sys.path.insert(0, str(TESTS))

from support.direct_sandbox import Fastn  # noqa: E402
from support.sensible_calls import SLACK, sensible  # noqa: E402
from support.world import World  # noqa: E402

from fastn_mcp.guard.caller import Caller  # noqa: E402
from fastn_mcp.guard.result import Done  # noqa: E402
from fastn_mcp.policy.asker import Asker  # noqa: E402
from fastn_mcp.policy.decision import Decision, least  # noqa: E402
from fastn_mcp.procedures.catalog import ALL_TOOLS, PROCEDURES, TOOLS  # noqa: E402
from fastn_mcp.server.rendering import render, render_preview  # noqa: E402
from fastn_mcp.tools.operation import Operation  # noqa: E402
from fastn_mcp.tools.paging import List  # noqa: E402
from fastn_mcp.tools.tool import AnyTool, Effect, Tool  # noqa: E402

LONGEST = 45
"""Lines of an answer that are shown."""

_TITLES = {"api_keys": "API keys", "ai": "Fastn's AI", "procedures": "Find, diagnose, change, undo"}

_ASKED = {
    Decision.ALLOW: "nothing",
    Decision.CONFIRM: "a person approves",
    Decision.TYPED: "a person types the target's name",
    Decision.DENY: "refused",
}


def toolsets() -> dict[str, list[AnyTool]]:
    """The tools by toolset, as `--toolsets` names them, in the order of the catalogue."""
    by_toolset: dict[str, list[AnyTool]] = {}
    for tool in ALL_TOOLS:
        by_toolset.setdefault("procedures" if tool in PROCEDURES else tool.toolset(), []).append(tool)
    return by_toolset


def title(toolset: str) -> str:
    return _TITLES.get(toolset, toolset.replace("_", " ").capitalize())


def overview() -> str:
    """The table of all tools, each with a link to what is said of it."""
    rows = [
        f"| [`{name}`](tools/{toolset}.md#{name}) | {tool.effect.value} | {known(tool)} | {_cell(tool.__doc__)} |"
        for toolset, tools in toolsets().items()
        for tool in tools
        if (name := tool.tool_name())
    ]
    return "\n".join(["| tool | effect | evidence | what it does |", "|---|---|---|---|", *rows])


def tool_pages() -> dict[str, str]:
    """The name of each page and its text."""
    answers = anyio.run(_answers)
    return {
        f"{toolset}.md": f"# {title(toolset)}\n\n"
        "<!-- Written by `make surface`, from the catalogue and the sandbox. -->\n\n"
        + "\n".join(_section(tool, answers.get(tool.tool_name())) for tool in tools)
        for toolset, tools in toolsets().items()
    }


def _section(tool: AnyTool, example: tuple[dict[str, Any], dict[str, Any]] | None) -> str:
    parts = [f"## {tool.tool_name()}\n", f"{tool.__doc__}\n", _facts(tool), _arguments(tool)]
    if example is not None:
        arguments, answer = example
        what = "What a person would see" if "tool" in arguments else "Its answer"
        called = "`preview_change`, called on the sandbox" if "tool" in arguments else "Called on the sandbox"
        lines = json.dumps(answer, indent=2, ensure_ascii=False).splitlines()
        cut = [*lines[:LONGEST], f"... {len(lines) - LONGEST} more lines"] if len(lines) > LONGEST else lines
        parts += [
            f"{called} with:\n\n```json\n{json.dumps(arguments, ensure_ascii=False)}\n```\n",
            f"{what}:\n\n```{'text' if cut is not lines else 'json'}\n" + "\n".join(cut) + "\n```\n",
        ]
    return "\n".join(parts)


def _facts(tool: AnyTool) -> str:
    rows = [("effect", f"`{tool.effect.value}`" + _raised(tool))]
    rows.append(("approval", _asked(tool.effect)))
    if issubclass(tool, Operation):
        rows.append(("request", f"`{tool.route}`"))
        rows.append(("evidence", f"{tool.evidence.kind}: {tool.evidence.source}"))
    else:
        rows.append(("evidence", "calls other operations; the guard checks each call"))
    rows.append(("toolset", f"`{'procedures' if tool in PROCEDURES else tool.toolset()}`"))
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {_cell(text)} |\n" for name, text in rows)


def _raised(tool: AnyTool) -> str:
    """Updates, and triggers that are made to fire, can be more than their type says."""
    if tool.effect is Effect.WRITE and tool.toolset() in ("workflows", "connectors", "triggers"):
        return ", or `external` if it acts on a live resource or one in use"
    return ", or that of the undone change" if tool.tool_name() == "undo_change" else ""


def _asked(effect: Effect) -> str:
    """Return what is asked in the mode guarded, with a test key and with a live one."""
    if effect is Effect.READ:
        return "nothing, in any mode"
    decision = least("guarded", effect, live=False)
    strictest = least("guarded", effect, live=True)
    live = f". With a live key {_ASKED[strictest]}" if strictest is not decision else ""
    return f"{_ASKED[decision]}{live}"


def _arguments(tool: AnyTool) -> str:
    schema = tool.input_schema()
    required = schema.get("required", [])
    rows = [
        f"| `{name}` | {_kind(facts)} | {'yes' if name in required else ''} | {_cell(facts['description'])} |"
        for name, facts in schema["properties"].items()
    ]
    if not rows:
        return "It takes no arguments.\n"
    return "\n".join(["| argument | type | required | |", "|---|---|---|---|", *rows]) + "\n"


def _kind(facts: dict[str, Any]) -> str:
    kind = f"{facts['type']} of {_kind(facts['items'])}s" if facts["type"] == "array" else str(facts["type"])
    return kind + (f", one of {', '.join(f'`{value}`' for value in facts['enum'])}" if "enum" in facts else "")


def known(tool: AnyTool) -> str:
    """How its shape is known, in a word or three."""
    return str(tool.evidence) if issubclass(tool, Operation) else "built on operations"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


async def _answers() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Each tool's arguments and its answer: that of a read, and of anything else what it would do."""
    answers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    label: dict[str, Any] = {"profile": "sandbox", "host": "localhost"}
    for call in _calls():
        with TemporaryDirectory() as folder:
            world = World(Path(folder))  # one each, so that no call sees what another did
            try:
                arguments = json.loads(json.dumps(call.shown()))
                if call.effect is Effect.READ:
                    done = await world.call(call)
                    if not isinstance(done, Done):
                        raise TypeError(f"{call.tool_name()}: {done}")
                    answers[call.tool_name()] = (arguments, render(call, done.result, label, None))
                else:
                    shown = await world.dispatch.preview(call, Caller(Asker(), None))
                    answers[call.tool_name()] = (
                        {"tool": call.tool_name(), "arguments": arguments},
                        render_preview(shown.data_for_agent() | {"account": "sandbox at localhost"}),
                    )
            finally:
                world.close()
    return answers


def _calls() -> Iterator[Tool[Any]]:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            fastn = Fastn(world.sandbox)
            for call in sensible(fastn):
                yield call.model_copy(update={"limit": 1}) if isinstance(call, List) else call
            runs = reversed(world.sandbox.state.all("executions"))
            failed = next(str(row["id"]) for row in runs if row["status"] == "failed")
            change = {"tool": "update_workflow", "arguments": {"workflow_id": SLACK, "description": "Every hour."}}
            procedures: dict[str, dict[str, Any]] = {
                "find": {"query": "acme"},
                "get_overview": {},
                "query": {"sql": "select customer, connector from connections where status = 'EXPIRED'"},
                "diagnose": {"workflow_id": SLACK},
                "wait_for_execution": {"execution_id": failed},
                "find_dependents": {"connector_id": fastn.id_of("connectors", "gamma")},
                "apply_changes": {"changes": [change]},
            }
            for name, arguments in procedures.items():
                yield TOOLS[name](**arguments)
        finally:
            world.close()
