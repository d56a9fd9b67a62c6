"""Results of `call` for people, and as JSON: in the width at hand, in colour, in a pipe, over pages, while it waits."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from rich.cells import cell_len
from rich.console import Console
from support.command_line import Run
from support.policy_files import ALLOWS, policy_file
from support.terminal import sitting
from test_help import examples, help_of

from fastn_mcp.cli.display import Display, rows_in
from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.procedures.catalog import TOOLS

WIDTHS = (60, 80, 160)
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ESCAPE = "\x1b"
ACME = "c009d6af-1950-4428-ad06-a70af567801a"


def displayed(tool: str, body: dict[str, JsonValue], width: int) -> str:
    console = Console(width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as output:
        for part in Display(width, NOW, lambda tool, arguments: f"call {tool} {' '.join(map(str, arguments))}").body(
            tool, body
        ):
            console.print(part)
    return output.get()


def check(text: str, width: int) -> None:
    assert [line for line in text.splitlines() if cell_len(line) > width] == []
    assert ESCAPE not in text
    assert not re.search(r"[{\[][\"'{\[]", text), text


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return what a tool's example prints, in a pipe."""
    from support.command_line import run_command

    folder = tmp_path_factory.mktemp("answers")
    environment = {name: str(folder / name) for name in ("FASTN_CONFIG_DIR", "FASTN_STATE_DIR", "HOME")}

    def answer(tool: str) -> dict[str, Any]:
        import shlex

        (line,) = examples(help_of(["call", tool]))
        done = run_command(shlex.split(line)[1:], environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return answer


def test_run_of_the_examples_is_there_at_any_time() -> None:
    (key,) = {line.split()[-1] for line in examples(help_of(["call", "get_execution"]))}
    for hours in range(0, 72, 3):
        at = datetime(2026, 11, 30, 0, 30, tzinfo=UTC) + timedelta(hours=hours)
        assert Sandbox(lambda at=at: at).state.get("executions", key) is not None


@pytest.mark.parametrize("tool", [name for name in TOOLS if name != "undo_change"])
def test_example_of_every_tool_works_and_is_displayed_in_any_width(
    tool: str, answers: Callable[[str], dict[str, Any]]
) -> None:
    body = answers(tool)
    rows = rows_in(body) or []
    for width in WIDTHS:
        text = displayed(tool, body, width)
        check(text, width)
        for row in rows:
            for name in ("name", "id"):
                if name in row and not (tool == "list_connections" and name == "name"):
                    assert [word for word in str(row[name]).split() if word not in text] == [], width


SHAPES: dict[str, dict[str, JsonValue]] = {
    "nothing": {},
    "empty list": {"data": [], "untrusted": True},
    "empty data": {"data": {}},
    "null data": {"data": None},
    "bare value": {"data": "just a text"},
    "row of an object": {"data": [{"id": "x1", "name": "A", "owner": {"deep": {"deeper": [1, {"a": [[]]}]}}}]},
    "rows without names": {"data": [{"a": 1}, {"b": [1, 2]}, {}]},
    "list of scalars": {"data": {"words": ["a", "b"], "numbers": [1, 2.5, None, True]}},
    "list of both": {"data": {"mixed": [1, {"a": "b"}, ["c"]]}},
    "columns without rows": {"data": {"columns": ["id"], "rows": []}},
    "short row": {"data": {"columns": ["id", "name"], "rows": [["x1"]]}},
    "long names": {"data": [{"id": "i" * 200, "name": "n" * 300, "status": "s" * 90}]},
    "nested deeper than wide": {"data": {"a": {"b": {"c": {"d": [{"e": {"f": {"g": [{"h": ["long " * 30]}]}}}]}}}}},
    "control characters": {"data": [{"id": "x1", "name": f"a{ESCAPE}[2J\u202eb\nc"}]},
    "markup": {"data": {"name": "[bold]x[/] :smile:"}},
    "receipt of nothing": {"done": "delete_customer"},
    "receipt without data": {"done": "create_customer", "receipt": {"why": "It was sent."}, "data": "ok"},
    "findings of nothing": {"data": {"findings": [{"severity": "high", "what": "x", "rows": None}]}},
    "finding of scalars": {"data": {"findings": [{"severity": 1, "what": None, "rows": ["a", {}]}]}},
    "wide letters": {"data": [{"id": "1", "name": "客户" * 60}]},
    "fields of other types": {"data": [{"id": {"a": 1}, "name": ["b"], "status": 5, "createdAt": 17}]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_unexpected_shapes_are_displayed(shape: str) -> None:
    for width in (20, *WIDTHS):
        check(displayed("list_customers", SHAPES[shape], width), width)


def test_markup_and_control_characters_are_shown_as_they_are() -> None:
    assert "[bold]x[/] :smile:" in displayed("get_customer", SHAPES["markup"], 80)
    assert r"a\u{1b}[2J\u{202e}b c" in displayed("list_customers", SHAPES["control characters"], 80)


def test_table_shows_names_first_ages_and_states_in_words() -> None:
    row: dict[str, JsonValue] = {"id": "exec_1", "status": "TIMED_OUT", "workflowId": "wf_1", "workflow": "Nightly"}
    row |= {"endOrgId": "c1", "customer": "Acme", "createdAt": "2026-11-29T09:00:00Z (3 hours ago)", "durationMs": 1500}
    header, line = displayed("list_executions", {"data": [row], "total": 1}, 100).splitlines()
    assert header.split() == ["workflow", "status", "created", "customer", "duration", "run" if "run" in row else "id"]
    assert re.split(r"\s{2,}", line.strip()) == ["Nightly", "timed out", "3 hours ago", "Acme", "1.5 s", "exec_1"]


def test_number_of_a_customer_is_shown_rather_than_the_id_beside() -> None:
    row: dict[str, JsonValue] = {
        "customer_id": "c009d6af-1950-4428-ad06-a70af567801a",
        "name": "Acme",
        "executions": 308,
    }
    header, line, below = displayed("get_usage", {"data": {"by_customer": [row, row]}}, 60).splitlines()[2:5]
    assert (header.split(), line.split(), below.split()) == (
        ["name", "executions"],
        ["Acme", "308"],
        [row["customer_id"]],
    )


def test_table_in_a_report_is_shown_as_one() -> None:
    table: dict[str, JsonValue] = {"columns": ["id", "name", "failed"], "rows": [["wf_1", "Sync", 2], ["wf_2", "Load"]]}
    lines = displayed("get_overview", {"data": {"table": table}}, 80).splitlines()
    assert [line.split() for line in lines[2:]] == [["name", "failed", "id"], ["Sync", "2", "wf_1"], ["Load", "wf_2"]]


def test_column_by_which_a_table_is_ordered_has_room() -> None:
    names = ["id", "name", "failed", "completed", "success_rate", "state"]
    row: list[JsonValue] = [
        "wf_9b3895557910",
        "Reconcile_HubSpot_contacts_with_Airtable",
        69,
        94,
        "57.7 %",
        "switched off",
    ]
    table: dict[str, JsonValue] = {"columns": [*names], "rows": [row]}
    shown = displayed("get_overview", {"data": {"of": 150, "table": table}}, 80).splitlines()
    assert shown[0].split() == ["rows", "in", "all", "150"]
    assert shown[3].split() == ["name", "failed", "completed", "success", "rate"]


def test_examples_are_counted_against_all() -> None:
    one: dict[str, JsonValue] = {"id": "wf_1", "name": "Sync", "triggers": ["a" * 40, "b" * 40]}
    body: dict[str, JsonValue] = {"data": {"used_by": [{"kind": "workflows", "count": 4, "examples": [one]}]}}
    assert "workflows (1 of 4) " in displayed("find_dependents", body, 80)


def test_resource_in_a_table_is_shown_by_its_name() -> None:
    row: dict[str, JsonValue] = {"id": "t1", "name": "Daily", "customer": {"id": "c1", "name": "Katana"}}
    lines = displayed("find", {"data": {"found": [row]}}, 80).splitlines()
    assert [line.split() for line in lines[2:]] == [["name", "customer", "id"], ["Daily", "Katana", "t1"]]


def test_values_with_commas_are_told_apart() -> None:
    body: dict[str, JsonValue] = {"data": {"triggers": ["Orders (on paid), broken", "Events"], "apps": ["a", "b"]}}
    lines = displayed("get_workflow", body, 80).splitlines()
    assert [line.rstrip() for line in lines] == ["triggers  Orders (on paid), broken; Events", "apps      a, b"]


def test_block_is_headed_by_kind_and_name() -> None:
    row: dict[str, JsonValue] = {"kind": "workflow", "id": "wf_1", "name": "Sync", "runs_for": [{"id": "c1"}]}
    lines = displayed("find", {"data": {"found": [row]}}, 80).splitlines()
    assert [line.strip() for line in lines[2:4]] == ["workflow Sync", "id  wf_1"]


def test_finding_says_how_many_it_does_not_name() -> None:
    rows: list[JsonValue] = [{"id": "1", "name": "Sandbox"}, {"id": "2", "name": "MCP"}]
    finding: dict[str, JsonValue] = {"severity": "medium", "what": "3 API keys.", "rows": rows, "of": 3}
    assert "→ Sandbox, MCP and 1 more" in displayed("get_overview", {"data": {"findings": [finding]}}, 80)
    finding["what"] = "3 API keys, first MCP."
    assert "→ Sandbox and 1 more" in displayed("get_overview", {"data": {"findings": [finding]}}, 80)


def test_rows_without_the_wanted_fields_are_not_blank_lines() -> None:
    assert displayed("list_customers", {"data": [{}, {}], "total": 2}, 80) == "None of these fields.\n"


def test_error_of_a_run_is_shown_rather_than_its_id_beside() -> None:
    row: dict[str, JsonValue] = {"id": "exec_c8f16ea911c9", "status": "failed", "error": "The shop connection expired"}
    row |= {"workflow": "Sync TikTok Orders to Cin7 Core", "createdAt": "2026-11-29T09:00:00Z (3 hours ago)"}
    header, *_, below = displayed("list_executions", {"data": [row], "total": 1}, 80).splitlines()
    assert header.split() == ["workflow", "status", "created", "error"]
    assert below.startswith("exec_c8f16ea911c9")


def test_receipt_says_what_was_done_how_to_undo_it_and_what_is_lost() -> None:
    receipt: dict[str, JsonValue] = {"change_id": "chg_1", "name": "Acme", "approved_by": "a person at a terminal"}
    receipt |= {"changed": {"name": {"from": "Acme", "to": "Initech"}}, "undo": "undo_change"}
    receipt |= {"restores": "The earlier values can be restored.", "not_restored": ["plan"]}
    receipt |= {"still_started_by": {"wf_b5880b29eb25": "no other trigger"}}
    text = displayed("update_customer", {"done": "update_customer", "receipt": receipt, "data": {"id": "c1"}}, 80)
    assert text.startswith("Done: update customer Acme\n")
    for part in (
        "call undo_change change_id",
        "from Acme, to Initech",
        "a person at a terminal",
        "plan",
        "c1",
        "wf_b5880b29eb25 no",
    ):
        assert part in text
    final = displayed("x", {"done": "delete_secret", "receipt": {"why": "Its value is lost."}, "data": None}, 80)
    assert "undo-change cannot undo it. Its value is lost." in final


# --- at a terminal -----------------------------------------------------------------------------------------------


Shown = Callable[..., "tuple[int, str]"]


@pytest.fixture
def at_terminal(environment: dict[str, str]) -> Shown:
    """Run a command at a terminal to its end. Return the exit code and what it showed."""

    def show(*arguments: str, columns: int = 80, **more: str) -> tuple[int, str]:
        variables = {**environment, "COLUMNS": str(columns), "TERM": "xterm-256color", **more}
        with sitting(["-m", "fastn_mcp", *arguments], variables) as person:
            return person.leaves()

    return show


def test_overview_takes_at_most_40_lines(at_terminal: Shown) -> None:
    code, shown = at_terminal("--color", "never", "--sandbox", "call", "get-overview")
    assert code == 0
    check(shown, 80)
    assert len(shown.splitlines()) <= 40
    for part in (
        "customers 5",
        "high    1 workflow failed",
        "→ Sync",
        "medium  Anybody can call 1 webhook",
        "low     ",
    ):
        assert part in shown


COLORS: list[tuple[tuple[str, ...], dict[str, str], bool]] = [
    ((), {}, True),
    ((), {"NO_COLOR": "1"}, False),
    (("--color", "never"), {}, False),
    (("--color", "always"), {"NO_COLOR": "1"}, True),
    (("--json",), {"NO_COLOR": "1"}, False),
    (("--json",), {}, True),
]


@pytest.mark.parametrize(("options", "variables", "is_coloured"), COLORS)
def test_colour_at_a_terminal(
    options: tuple[str, ...], variables: dict[str, str], is_coloured: bool, at_terminal: Shown
) -> None:
    code, shown = at_terminal("--sandbox", "call", "list-connections", *options, **variables)
    assert code == 0
    assert (ESCAPE in shown) is is_coloured
    assert not re.search(r"\x1b\[(?:\d+;)*(?:33|37|93|97)m", shown) or "--json" in options, "vanishes on white"


def test_no_color_holds_for_other_commands_too(at_terminal: Shown) -> None:
    assert ESCAPE in at_terminal("tools")[1]
    assert ESCAPE not in at_terminal("tools", NO_COLOR="1")[1]
    assert ESCAPE not in at_terminal("--color", "never", "tools")[1]


def test_color_always_displays_in_a_pipe(fastn: Run) -> None:
    text = fastn("--sandbox", "call", "list-customers", "--color", "always", env={"COLUMNS": "80"}).stdout
    assert ESCAPE in text
    assert "Acme Corp" in text
    assert "{" not in text


# --- JSON --------------------------------------------------------------------------------------------------------


def test_pipe_gets_the_same_json_with_and_without_json(fastn: Run) -> None:
    plain = fastn("--sandbox", "call", "get-customer", "--customer-id", "acme-corp")
    assert plain.stdout == json.dumps(json.loads(plain.stdout), ensure_ascii=False) + "\n"
    assert list(json.loads(plain.stdout)) == ["data", "untrusted"]
    for options in (("--json",), ("--json", "--color", "never")):
        assert fastn("--sandbox", "call", "get-customer", "--customer-id", "acme-corp", *options).stdout == plain.stdout


def test_json_fields_are_selected_of_each_row_or_of_one(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "list-customers", "--json", "name, adminEmail", "--limit", "2")
    assert [list(row) for row in json.loads(done.stdout)] == [["name", "adminEmail"]] * 2
    assert all(row["adminEmail"] for row in json.loads(done.stdout)), "the tool was not asked for the column"
    one = fastn("--sandbox", "call", "get-customer", "--customer-id", "acme-corp", "--json=name,region")
    assert json.loads(one.stdout) == {"name": "Acme Corp", "region": "US"}
    assert one.stderr == ""


def test_unknown_field_of_a_read_fails_and_lists_the_fields(fastn: Run) -> None:
    for call in (("list-customers", "--limit", "1"), ("get-customer", "acme-corp")):
        done = fastn("--sandbox", "call", *call, "--json=name,nope")
        assert (done.returncode, done.stdout) == (2, "")
        assert re.search(r"There is no field nope\. Fields: .*\bname, plan, ", done.stderr)


def test_field_that_a_change_did_not_return_is_null(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "create-customer", "--name", "Initech", "--json=name,nope")
    assert json.loads(done.stdout) == {"name": "Initech", "nope": None}
    assert done.stderr == "fastn-mcp: Not in the answer, so null: nope.\n"


def test_json_without_fields_does_not_swallow_the_next_option(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "list-customers", "--json", "--limit", "2")
    assert len(json.loads(done.stdout)["data"]) == 2


def test_errors_are_json_whatever_fields_are_selected(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "get-customer", "--customer-id", "nobody", "--json", "name")
    assert json.loads(done.stdout)["outcome"] == "not_found"


# --- pages, progress, waiting ------------------------------------------------------------------------------------


def test_all_pages_are_one_list(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "list-executions", "--all")
    body = json.loads(done.stdout)
    assert len(body["data"]) == body["total"] == len({row["id"] for row in body["data"]}) > 300
    assert "next_cursor" not in body
    assert done.stderr == ""


def test_further_page_of_a_report_is_named_in_one_piece(fastn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("--sandbox", "call", "get-usage", "--color", "always")
    assert "--cursor" not in fastn(*command).stdout
    monkeypatch.setattr("fastn_mcp.tools.billing._PAGE", 2)
    output = fastn(*command, env={"COLUMNS": "30"}).stdout
    assert (cursor := re.search(r"\nThere is more.*\n  --cursor (\S{35,})\n\Z", output))
    assert "There is more" not in fastn(*command, "--cursor", cursor[1]).stdout


def test_all_stops_at_its_bound_and_says_how_to_go_on(fastn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_mcp.cli.call_output.MAX_ROWS", 150)
    done = fastn("--sandbox", "call", "list-executions", "--all")
    body = json.loads(done.stdout)
    assert len(body["data"]) == 150
    assert "Stopped after 150 rows." in done.stderr
    assert f"call list-executions --all --cursor '{body['next_cursor']}'" in done.stderr
    further = json.loads(fastn("--sandbox", "call", "list-executions", "--all", "--cursor", body["next_cursor"]).stdout)
    assert not {row["id"] for row in further["data"]} & {row["id"] for row in body["data"]}


def test_all_keeps_what_was_read_before_an_error(fastn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import fastn_mcp.cli.call as command
    from fastn_mcp.errors import Failed

    make, calls = command.make_call, list[int]()

    async def failing(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise Failed("Fastn is down.")
        return await make(*arguments, **more)

    monkeypatch.setattr(command, "make_call", failing)
    done = fastn("--sandbox", "call", "list-executions", "--all")
    assert done.returncode == 1
    body = json.loads(done.stdout)
    assert len(body["data"]) == 100
    assert body["next_cursor"]
    assert "Fastn is down." in done.stderr
    assert "Stopped after 100 rows." in done.stderr


def test_watch_shows_progress_until_the_run_has_ended(fastn: Run, at_terminal: Shown, tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "account.json"), "--policy", str(policy_file(tmp_path, ALLOWS)))
    run = fastn(*start, "call", "run-workflow", "--workflow-id", "wf_b5880b29eb25", "--customer-id", ACME)
    id_ = json.loads(run.stdout)["data"]["executionId"]
    code, shown = at_terminal(*start, "call", "wait-for-execution", "--execution-id", id_, "--watch")
    assert code == 0, shown
    assert re.search(r"\r\x1b\[K(?:queued|running|pending) for \d+ s", shown), shown
    assert "waited seconds" in shown.rpartition("\x1b[K")[2]


def test_waiting_for_a_person_is_said_at_once_and_once(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "delete-trigger", "--trigger-id", "f014f76e-5754-4e25-a7c2-5bcffab9c00a")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "approvals" in line
    waited = fastn(
        *("--sandbox", "call", "delete-trigger", "--trigger-id", "f014f76e-5754-4e25-a7c2-5bcffab9c00a"),
        env={"FASTN_APPROVAL_WAIT_SECONDS": "1"},
    )
    (line,) = waited.stderr.splitlines()
    assert line.startswith("fastn-mcp: Waiting for a person to decide.")
    assert "approvals" in line


def test_fields_of_a_tool_take_commas_too(fastn: Run) -> None:
    command = ("--sandbox", "call", "list-workflows", "--limit", "1")
    with_commas = fastn(*command, "--fields", "name,status").stdout
    assert set(json.loads(with_commas)["data"][0]) >= {"name", "status"}
    assert with_commas == fastn(*command, "--fields", "name", "--fields", "status").stdout
