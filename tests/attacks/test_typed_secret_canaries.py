"""A secret that people type is in the request to Fastn and nowhere else, also on a team's page over two replicas."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import stdio_client
from support.folder_texts import files
from support.local_page import CANARY, recording_browser, typed_on_the_page
from support.otlp_receiver import Receiver
from support.page_visitor import words
from support.replica_pair import two_replicas
from support.server_process import Person, Upstream, approving, body, environment, stdio
from support.valkey_server import ValkeyServer

FORGED, FIRST, SECOND = (f"kAnar13nvogel+{name}/typed" for name in ("forged", "first", "second"))
POLICY = '[[rule]]\ntool = "create_secret"\nthen = "four_eyes"\n'


def written(secret: str) -> set[str]:
    """Return the forms in which it could be found."""
    raw = secret.encode()
    return {
        secret,
        quote(secret, safe=""),
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
    }


def processes() -> str:
    """Return the command lines and environments of the processes of this user."""
    texts: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                texts.append((process / name).read_bytes().decode("latin-1"))
            except OSError:  # of another user, or gone
                continue
    return "\n".join(texts)


def kept(valkey: ValkeyServer) -> str:
    """Return every write that the server has taken, which it appends to its file before it answers."""
    return "\n".join(text for name, text in files(valkey.folder).items() if name.endswith(".aof"))


@pytest.mark.extension("telemetry")
async def test_secret_typed_on_the_page_across_replicas_is_found_nowhere_else(
    valkey: ValkeyServer, collector: Receiver, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, str] = {}
    env = {
        "FASTN_LOG_LEVEL": "debug",
        "FASTN_LOG_FILE": str(tmp_path / "log"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }
    results: list[dict[str, Any]] = []
    with two_replicas(tmp_path, valkey.url(), wait=45, policy=POLICY, env=env) as world:
        async with (
            world.caller(world.one) as agent,
            world.visitor("dana", world.one) as dana,
            world.visitor("kim", world.other) as kim,
            anyio.create_task_group() as tasks,
        ):

            async def create() -> None:
                results.append(await agent("create_secret", name="PAYMENTS_TOKEN"))

            told = await agent("create_secret", name="PAYMENTS_TOKEN")
            assert told["outcome"] == "approval_required"  # with where a person types it
            tasks.start_soon(create)
            await dana.until("PAYMENTS_TOKEN")
            assert (await dana.approve(token="of.nobody", **{"secret.value": FORGED})).status_code == 403
            first = await dana.approve(**{"secret.value": FIRST})
            assert first.status_code == 303, words(first.text)
            seen |= {
                "a page with one approval": await kim.until("Approvals so far: 1"),
                "Valkey meanwhile": kept(valkey),
            }
            seen["processes"] = processes()
            assert "document:typed " in seen["Valkey meanwhile"]
            differs = await kim.approve(**{"secret.value": SECOND})
            assert differs.status_code == 409
            assert "What you typed differs from what the first approver typed. Nothing was" in words(differs.text)
            seen |= {"a page that refused the second value": differs.text}
            assert (await kim.approve(**{"secret.value": FIRST})).status_code == 303
        assert results[0]["done"] == "create_secret"
        async with world.caller(world.other) as agent:
            for tool in ("list_secrets", "list_changes", "get_overview"):
                results.append(await agent(tool))  # noqa: PERF401 - one after the other
        async with world.visitor("dana", world.other) as dana:
            seen["the page afterwards"] = (await dana.http.get("/approvals/")).text
    printed = capfd.readouterr()
    seen |= {"telemetry": collector.everything(), "Valkey": kept(valkey), "results": json.dumps(results)}
    seen |= {"printed": printed.out + printed.err, **files(tmp_path)}
    sent = [json.dumps(request.body) for request in world.sandbox.requests]
    assert [secret for secret in (FORGED, FIRST, SECOND) if any(secret in body for body in sent)] == [FIRST]
    places = {
        where
        for where, text in seen.items()
        for secret in (FORGED, FIRST, SECOND)
        for form in written(secret)
        if form in text
    }
    assert places == set()
    assert {"PAYMENTS_TOKEN" in seen[where] for where in ("results", "Valkey", "the page afterwards")} == {True}
    assert collector.spans
    assert "debug" in seen[str(tmp_path / "log")]
    assert sum(name.endswith("audit.jsonl") for name in seen) == 2


async def test_secret_typed_on_the_page_is_not_kept(upstream: Upstream, tmp_path: Path) -> None:
    browser, opened = recording_browser(tmp_path)
    env = environment(upstream) | {"BROWSER": browser, "FASTN_STATE_DIR": str(tmp_path / "state")}
    env["FASTN_APPROVAL_WAIT_SECONDS"] = "45"
    answers, shown = list[dict[str, Any]](), ""
    person = Person(approving)
    with (tmp_path / "log").open("w+") as log:
        server = stdio_client(stdio(env, "--log-level", "debug"), errlog=log)
        async with Client(server, mode="2026-07-28", elicitation_callback=person) as client:

            async def call() -> None:
                answers.append(body(await client.call_tool("create_secret", {"name": "STRIPE_KEY"})))

            with anyio.fail_after(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    while not opened.exists() or not opened.read_text().strip():  # noqa: ASYNC110 - another process
                        await anyio.sleep(0.1)
                    shown = await typed_on_the_page(opened.read_text().strip(), "value")
            assert answers[0].get("done") == "create_secret", answers
            assert person.asked == []  # a form never asks for a secret
            changes = body(await client.call_tool("list_changes", {}))
    (change,) = [request for request in upstream.requests() if request["method"] != "GET"]
    assert change["body"]["value"] == CANARY
    everything = "".join([*files(tmp_path).values(), shown, str(answers), str(changes)])
    assert "create_secret" in everything
    assert CANARY not in everything
