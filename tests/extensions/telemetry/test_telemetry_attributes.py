"""Contents of telemetry: a closed vocabulary, without data of an account."""

import logging
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from pydantic import JsonValue
from support.collected_telemetry import Collected
from support.faulty_sandbox import EchoKey, Garbage, Status
from support.world import FormNow, World, yes

from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.telemetry import attributes as names
from fastn_mcp.extensions.telemetry.exporter import LogRecordHandler
from fastn_mcp.server.log import JsonLines
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import Operation

PAGE = Path(__file__).parents[3] / "docs" / "observability.md"
CANARY = "Canary0x7"


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _call(operation: AnyOperation, world: World) -> Operation[Any]:
    """Build a call with canaries in every text and the ids of existing resources."""
    values: dict[str, Any] = {"string": CANARY, "object": {CANARY: CANARY}, "array": [], "integer": 1}
    fields = operation.model_fields
    needed = {name for name in fields if fields[name].is_required()} | (fields.keys() & {"name"})
    needed |= {"value"} if operation.tool_name() == "create_secret" else set()
    schema = cast("dict[str, dict[str, Any]]", operation.input_schema()["properties"])
    arguments = {name: values[schema[name]["type"]] for name in needed}
    arguments |= {"email": "canary0x7@acme.example"} if "email" in needed else {}
    for name in operation.route.parameters:
        rows = world.sandbox.state.all({"api_key_id": "apiKeys"}.get(name, f"{name.removesuffix('_id')}s"))
        arguments[name] = rows[0]["id"] if rows else CANARY  # all are deleted already
    return operation.model_validate(arguments)


@pytest.mark.parametrize("fault", [None, Status(status=500, message=CANARY, times=None), EchoKey(times=None)])
async def test_spans_and_metrics_hold_no_account_data(fault: Any, tmp_path: Path) -> None:
    """Every operation, with canaries in its arguments, on data full of canaries; for successes and failures."""
    otel = Collected()
    world = otel.world(tmp_path)
    if fault is not None:
        world.sandbox.faults.add(fault.model_copy(update={"method": "POST"}), fault)
    for operation in CATALOG:
        await world.call(_call(operation, world), FormNow(yes, world.clock))
    assert {span.name for span in otel.spans} >= {f"execute_tool {operation.tool_name()}" for operation in CATALOG}
    everything = otel.everything()
    held = {text for text in _texts(cast(JsonValue, world.sandbox.state.dump())) if _is_account_data(text)}
    assert len(held) > 200
    assert [text for text in [KEY, CANARY, CANARY.lower(), *held] if text in everything] == []
    world.close()


def _is_account_data(text: str) -> bool:
    """Whether a text is an id, an address or a name of an account, and not a word of the API."""
    return len(text) > 8 and re.search(r"[\d@ ]", text) is not None


async def test_every_attribute_and_metric_is_documented(tmp_path: Path) -> None:
    otel = Collected()
    world = otel.world(tmp_path)
    for operation in CATALOG:
        world.sandbox.faults.add(Garbage(method="PUT"))
        await world.call(_call(operation, world), FormNow(yes, world.clock))
    events = [event for span in otel.spans for event in span.events]
    used = {name for item in [*otel.spans, *events] for name in item.attributes or {}}
    used |= {name for metric in names.METRICS for attributes, _ in otel.points(metric.name) for name in attributes}
    assert used <= documented("## Attributes")
    patterns = [re.sub(r"\\{[^}]+\\}", r".+", re.escape(name)) for name in documented("## Spans")]
    assert [span.name for span in otel.spans if not any(re.fullmatch(each, span.name) for each in patterns)] == []
    world.close()


def documented(heading: str) -> set[str]:
    """Return the names in the first column of the table below a heading of the page."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    return set(re.findall(r"^\| `([^`]+)` \|", below.partition("\n## ")[0], re.MULTILINE))


def test_page_lists_all_metrics_and_attributes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for metric in names.METRICS:
        attributes = ", ".join(f"`{name}`" for name in metric.attributes)
        assert f"| `{metric.name}` | {metric.kind}, {metric.unit} | {metric.description} | {attributes} |" in page
    assert {name for metric in names.METRICS for name in metric.attributes} <= documented("## Attributes")
    assert {*names.ATTRIBUTES.values()} <= documented("## Attributes")


def test_metric_attributes_are_bounded() -> None:
    """No metric has an attribute whose number of values an account or a client can increase."""
    free = {"jsonrpc.request.id", *(names.ATTRIBUTES[key] for key in ("rule", "seconds", "resent", "calls"))}
    assert all(free.isdisjoint(metric.attributes) for metric in names.METRICS)
    assert {"tools/call", "resources/read"} <= names.METHODS


@pytest.mark.parametrize(
    ("rule", "otel"),
    [
        ("reads", "reads"),
        ("mode guarded: destroy, live key", "mode guarded: destroy, live key"),
        ("policies of ana/policy.toml line 12: protected customer acme-*", "protected, line 12"),
        ("policy.toml line 3: rule delete_*", "rule, line 3"),
        ("plan night.toml line 7", "plan, line 7"),
    ],
)
def test_rule_is_reported_by_its_line(rule: str, otel: str) -> None:
    assert names.rule(rule) == otel


@pytest.fixture
def records() -> Generator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    handler, root = LogRecordHandler(provider, JsonLines([f"fsk_live_{CANARY}"])), logging.getLogger()
    before, root.level = root.level, logging.DEBUG
    root.addHandler(handler)
    yield exporter
    root.removeHandler(handler)
    root.setLevel(before)


def test_own_log_records_are_exported_without_secrets(records: InMemoryLogRecordExporter) -> None:
    logging.getLogger("fastn_mcp.guard").warning("the key fsk_live_%s was used", CANARY)
    (one,) = records.get_finished_logs()
    assert one.log_record.body == "the key [hidden-by-fastn-mcp] was used"
    assert one.log_record.severity_text == "WARNING"
    assert (one.log_record.attributes or {})["logger.name"] == "fastn_mcp.guard"


def test_text_of_an_exception_is_not_exported(records: InMemoryLogRecordExporter) -> None:
    """It can hold data of Fastn or of a client. The place of the exception is exported."""
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("fastn_mcp.guard").exception("the guard failed on delete_customer")
    (one,) = records.get_finished_logs()
    said = dict(one.log_record.attributes or {})
    assert said["exception.type"] == "ValueError"
    assert "test_text_of_an_exception_is_not_exported" in str(said["exception.stacktrace"])
    assert CANARY not in one.to_json()


def test_messages_of_libraries_are_not_exported(records: InMemoryLogRecordExporter) -> None:
    logging.getLogger("mcp.server.runner").error(f"cannot be read: {CANARY}")
    (one,) = records.get_finished_logs()
    assert one.log_record.body == "A message of mcp.server.runner: see the log of this process."
    assert CANARY not in one.to_json()


def test_records_of_the_exporter_are_not_exported(records: InMemoryLogRecordExporter) -> None:
    """A failed export would cause another one, in an endless loop."""
    for name in ("opentelemetry.exporter", "urllib3.connectionpool", "requests"):
        logging.getLogger(name).error("cannot connect")
    assert records.get_finished_logs() == ()
