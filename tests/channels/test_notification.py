"""Notifications: what approvers are told, once, by which services, and that it neither decides nor delays anything."""

import logging
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from apprise import Apprise
from apprise.manager_plugins import NotificationManager
from support.command_line import error_line, run_command
from support.decisions import moved
from support.notified_services import HttpService, MailServer, http_service, internet, mail_server
from support.world import World
from typing_extensions import override

from fastn_mcp.channels.notification import NotifyingChannel, message, requester, services_of
from fastn_mcp.config.load import load
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import ALL_SCOPES, Caller
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.access import CreateApiKey, CreateRole, InviteUser
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.workflows import RunWorkflow

CANARY = "canary-in-the-arguments"
PASSWORD = "hunter2-of-the-service"
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
DISCORD = "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz"
TELEGRAM = "tgram://123456789:abcdefg_hijklmnop/12315544/"
TEXT = (
    'run_workflow, asked by "local" in the account test.\n'
    "Open until 2026-11-25T09:10:00Z.\n"
    "A person has to approve on the desk."
)  # fmt: skip


@pytest.fixture
def ntfy() -> Generator[HttpService]:
    with http_service() as service:
        yield service


@pytest.fixture
def mail(tmp_path: Path) -> Generator[MailServer]:
    with mail_server(tmp_path) as server:
        yield server


@contextmanager
def slack(folder: Path) -> Generator[HttpService]:
    with internet(folder, "hooks.slack.com") as service:
        yield service


class Log(logging.Handler):
    """What reaches the log of the process, at any level. pytest also catches what does not reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")

    @property
    def problems(self) -> list[str]:
        """What is logged of notifications."""
        return [line.partition(": ")[2] for line in self.lines if "notification" in line]


@pytest.fixture
def log() -> Generator[Log]:
    root = logging.getLogger()
    handler = Log()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def ntfy_url(service: HttpService, more: str = "") -> str:
    return f"ntfy://ana:{PASSWORD}@127.0.0.1:{service.port}/approvals{more}"


def notifying(*urls: str) -> Settings:
    return load({"notify": list(urls)}, {"FASTN_API_KEY": "k"}, None)


@asynccontextmanager
async def notified(folder: Path, *urls: str) -> AsyncGenerator[World]:
    """An account whose approvers are notified by the services of these URLs."""
    world = World(folder)
    channel = NotifyingChannel(world.desk, services_of(notifying(*urls)), world.ledger, world.system)
    world.desk = channel
    world.dispatch = world.dispatching(SecretValues({}, []), None)
    yield world
    await channel.aclose()


def run(world: World) -> RunWorkflow:
    workflow = world.sandbox.state.named("workflows", "process-new-orders", by="name")
    return RunWorkflow(workflow_id=str(workflow["id"]), input={"text": CANARY})


async def asked(world: World) -> PendingApproval:
    waiting = await world.call(run(world))
    assert isinstance(waiting, PendingApproval)
    return waiting


async def open_request(world: World) -> ApprovalRequest:
    (request,) = await world.ledger.waiting(world.timestamp)
    return request


async def told(world: World, *services: str) -> tuple[str, ...]:
    """Wait until it is recorded that people were notified by these services. Return the sentences about that."""
    with anyio.fail_after(30):
        while not all(map((await open_request(world)).is_notified_by, services)):  # noqa: ASYNC110 - in the background
            await anyio.sleep(0.01)
    return (await open_request(world)).told


async def settled(came: list[Any], count: int) -> None:
    """Wait until this many messages came, and no more."""
    with anyio.fail_after(30):
        while len(came) < count:  # noqa: ASYNC110 - it is sent in the background
            await anyio.sleep(0.01)
    await anyio.sleep(0.1)
    assert len(came) == count


# --- what arrives --------------------------------------------------------------------------------------------------


async def test_message_arrives_by_ntfy_once(tmp_path: Path, ntfy: HttpService) -> None:
    async with notified(tmp_path, ntfy_url(ntfy)) as world:
        waiting = await asked(world)
        assert waiting.where.endswith("A person has to approve on the desk. A notification goes to ntfy.")
        assert await told(world, "ntfy") == ("Notified at 09:00 UTC: ntfy.",)
        for _ in range(3):
            assert (await asked(world)).where.endswith(
                "A person has to approve on the desk. Notified at 09:00 UTC: ntfy."
            )
        await settled(ntfy.came, 1)
    (post,) = ntfy.came
    assert post.json == {"topic": "approvals", "title": "A call waits for an approval", "message": TEXT}
    assert "Basic" in post.headers["Authorization"]


async def test_message_arrives_by_mail(tmp_path: Path, mail: MailServer) -> None:
    async with notified(tmp_path, mail.url()) as world:
        await asked(world)
        assert await told(world, "E-Mail") == ("Notified at 09:00 UTC: E-Mail.",)
    (sent,) = mail.came
    assert sent["X-RcptTo"] == "oncall@example.com"
    assert (sent["Subject"], sent.get_content_type()) == ("A call waits for an approval", "text/plain")
    assert sent.get_content().split() == TEXT.split()


async def test_message_arrives_in_slack(tmp_path: Path) -> None:
    """Also by the address that Slack shows for its incoming webhooks."""
    with slack(tmp_path) as service:
        async with notified(tmp_path, SLACK, SLACK.replace("slack://", "https://hooks.slack.com/services/")) as world:
            await asked(world)
            (sentence,) = await told(world, "Slack", "Slack 2")
            assert sentence in ("Notified at 09:00 UTC: Slack, Slack 2.", "Notified at 09:00 UTC: Slack 2, Slack.")
    one, two = service.came
    assert (one.host, one.path) == ("hooks.slack.com:443", "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    assert one.path == two.path
    assert one.json["mrkdwn"] is False
    (part,) = one.json["attachments"]
    assert (part["title"], part["text"]) == ("A call waits for an approval", TEXT)
    assert "http" not in one.body  # no logo of anybody's


SERVICES = ["ntfy", "mail", "Slack"]


@contextmanager
def receiving(kind: str, folder: Path) -> Generator[tuple[str, Callable[[], list[str]]]]:
    """Run a service. Yields its URL, and what came to it as text."""
    if kind == "ntfy":
        with http_service() as service:
            yield ntfy_url(service), lambda: service.texts
    elif kind == "mail":
        with mail_server(folder) as server:
            yield server.url(), lambda: [f"{sent['Subject']}\n{sent.get_content()}" for sent in server.came]
    else:
        with slack(folder) as service:
            yield SLACK, lambda: service.texts


@pytest.mark.parametrize("kind", SERVICES)
async def test_message_holds_no_argument_name_sentence_or_address(tmp_path: Path, kind: str) -> None:
    """The sentences of a request hold the person who is invited, the role, and what Fastn's AI is told."""
    calls = [
        InviteUser(email="canary@example.com", role="canary"),
        CreateRole(name="canary", permissions=["canary:read"]),
        AiChat(message="canary"),
        CreateApiKey(name="canary"),
    ]
    caller = Caller(Asker("https://login.example.com|ana@example.com", "Ana"), None, frozenset(ALL_SCOPES))
    with receiving(kind, tmp_path) as (url, texts):
        async with notified(tmp_path, url) as world:
            for number, call in enumerate(calls, 1):
                assert isinstance(await world.dispatch(call, caller), PendingApproval)
                with anyio.fail_after(30):
                    while len(texts()) < number:  # noqa: ASYNC110 - it is sent in the background
                        await anyio.sleep(0.01)
            requests = await world.ledger.waiting(world.timestamp)
    assert len(texts()) == len(calls)
    for call, text in zip(calls, texts(), strict=True):
        for part in (call.tool_name(), "Ana [e-mail address]", "account test", "2026-11-25T09:10:00Z", "on the desk"):
            assert part in text
        assert "canary" not in text
        assert "ana@" not in text
        assert "login.example.com" not in text
    for request in requests:
        lines = request.question.lines()
        assert any("canary" in line for line in lines)
        assert not [line for line in (request.id, *lines) if any(line in text for text in texts())]


HOSTILE = [
    "<@U123> *b* _i_ ~s~ @everyone <!channel>", "[x](https://evil.example)", "`a` || b || # c", "evil.example",
    "**Approved** by Dana", "a\nb", "&lt;!here&gt;", "https://evil.example/", ":x: -a- ^b^ {c} $d$", "x\u202ey",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_name_of_a_client_is_plain_words_in_quotes(tmp_path: Path, name: str) -> None:
    """Discord and many others show every text as Markdown, with mentions and links, whatever its sender declares."""
    with internet(tmp_path, "hooks.slack.com", "discord.com", "api.telegram.org") as service:
        async with notified(tmp_path, SLACK, DISCORD, TELEGRAM) as world:
            waiting = await world.dispatch(run(world), Caller(Asker(client_name=name), None))
            assert isinstance(waiting, PendingApproval)
            await told(world, "Slack", "Discord", "Telegram")
    assert {post.host for post in service.came} == {"hooks.slack.com:443", "discord.com:443", "api.telegram.org:443"}
    for post in service.came:
        text = post.json["attachments"][0]["text"] if "attachments" in post.json else ""
        text = text or post.json.get("content") or post.json["text"]
        assert re.search(r'run_workflow, asked by "(\w+(-\w+)*( \w+(-\w+)*)*)" in the account test\.', text), text
        assert not re.search(r"[<>@*`~|#\[]", text.replace("<b>A call waits for an approval</b>", "")), text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("claude-code", "claude-code"),
        ("Visual Studio Code", "Visual Studio Code"),
        ("ana@example.com", "[e-mail address]"),
        ("Ana <ana@example.com>", "Ana [e-mail address]"),
        ("ana@example.com(https://evil.example)", "[e-mail address] https evil example"),
        ("José Müller-Ortiz", "José Müller-Ortiz"),
        ("हिन्दी", "हिन्दी"),
        ("x" * 500, "x" * 79),
    ],
)
async def test_requester_is_named_in_plain_words(tmp_path: Path, name: str, shown: str) -> None:
    world = World(tmp_path)
    await asked(world)
    assert requester(replace(await open_request(world), asked_by=name)) == shown


async def test_address_of_an_approver_is_left_out(tmp_path: Path) -> None:
    """A channel says who has approved, and some people are named by their address."""
    world = World(tmp_path)
    await asked(world)
    text = message(
        await open_request(world),
        "A person has to approve in Slack. 2 people have to. Approvals so far: 1 (ana@example.com).",
    )
    assert text.endswith("Approvals so far: 1 ([e-mail address]).")


# --- when and how often --------------------------------------------------------------------------------------------


async def test_two_processes_notify_of_a_request_once(tmp_path: Path, ntfy: HttpService) -> None:
    async with notified(tmp_path, ntfy_url(ntfy)) as one, notified(tmp_path, ntfy_url(ntfy)) as two:
        await asked(one)
        await told(one, "ntfy")
        assert "Notified at 09:00 UTC: ntfy." in (await asked(two)).where
        await settled(ntfy.came, 1)


async def test_other_process_delivers_what_one_that_ended_did_not(tmp_path: Path, ntfy: HttpService) -> None:
    with http_service() as hanging:
        hanging.held.clear()
        async with notified(tmp_path, ntfy_url(hanging)) as one:
            await asked(one)
            await settled(hanging.came, 1)
        async with notified(tmp_path, ntfy_url(ntfy)) as two:
            await asked(two)
            await told(two, "ntfy")
            await settled(ntfy.came, 1)


async def test_failed_service_is_tried_again_alone(tmp_path: Path, ntfy: HttpService, log: Log) -> None:
    with http_service([500, 404, 307]) as failing:
        async with notified(tmp_path, ntfy_url(ntfy), f"json://a:{PASSWORD}@127.0.0.1:{failing.port}/x") as world:
            await asked(world)
            await told(world, "ntfy", "JSON")
            await settled(failing.came, 4)  # a redirect is not followed
            await settled(ntfy.came, 1)
    assert {post.path for post in failing.came} == {"/x"}
    problems = [f"JSON (URL 2) did not take a notification: HTTP {status}" for status in (500, 404, 307)]
    assert log.problems == problems


async def test_slow_service_does_not_hold_up_what_is_said_of_another(tmp_path: Path, ntfy: HttpService) -> None:
    with http_service() as hanging:
        hanging.held.clear()
        async with notified(tmp_path, ntfy_url(hanging), ntfy_url(ntfy)) as world:
            await asked(world)
            assert await told(world, "ntfy 2") == ("Notified at 09:00 UTC: ntfy 2.",)
            assert len(hanging.came) == 1


async def test_unreachable_service_is_named(tmp_path: Path, log: Log) -> None:
    async with notified(tmp_path, f"jsons://a:{PASSWORD}@127.0.0.1:1/x") as world:
        await asked(world)
        with anyio.fail_after(30):
            while not log.problems:  # noqa: ASYNC110 - it is sent in the background
                await anyio.sleep(0.01)
    assert log.problems[0] == "JSON (URL 1) did not take a notification: no connection, or it was refused"


async def test_notification_is_not_retried_after_the_request(tmp_path: Path) -> None:
    with http_service([404] * 100) as failing:
        async with notified(tmp_path, ntfy_url(failing)) as world:
            await asked(world)
            request = await open_request(world)
            await settled(failing.came, 10)  # every minute of its ten
            assert world.timestamp == request.expires


async def test_decided_request_is_not_retried(tmp_path: Path, ntfy: HttpService) -> None:
    ntfy.statuses += [404] * 100
    ntfy.held.clear()
    async with notified(tmp_path, ntfy_url(ntfy)) as world:
        await asked(world)
        await settled(ntfy.came, 1)
        await world.approve_open_request()
        ntfy.held.set()
        await settled(ntfy.came, 1)


async def test_service_that_counts_as_optional_is_tried_again_too(tmp_path: Path, ntfy: HttpService) -> None:
    """With `optional=yes` Apprise calls a failure a success."""
    ntfy.statuses.append(500)
    async with notified(tmp_path, ntfy_url(ntfy, "?optional=yes&retry=5&wait=0")) as world:
        await asked(world)
        assert await told(world, "ntfy") == ("Notified at 09:01 UTC: ntfy.",)
        await settled(ntfy.came, 2)


async def test_hanging_service_delays_no_call_and_no_decision(tmp_path: Path, ntfy: HttpService) -> None:
    ntfy.held.clear()
    async with notified(tmp_path, ntfy_url(ntfy)) as world:
        began = time.monotonic()
        await asked(world)
        request = await open_request(world)
        now = world.timestamp
        await moved(world.ledger, request.id, [RequestState.OPEN], RequestState.APPROVED, now, by="local_page")
        assert isinstance(await world.call(run(world)), Done)
        assert time.monotonic() - began < 3


async def test_hanging_services_take_a_bounded_number_of_threads(
    tmp_path: Path, ntfy: HttpService, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastn_mcp.channels.notification._MAX_THREADS", 2)
    ntfy.held.clear()
    async with notified(tmp_path, *(ntfy_url(ntfy) for _ in range(5))) as world:
        await asked(world)
        await settled(ntfy.came, 2)
    assert {problem.partition(": ")[2] for problem in log.problems} == {"too many notifications are being sent"}


async def test_certificate_that_is_not_trusted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    with slack(tmp_path) as service:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        async with notified(tmp_path, SLACK) as world:
            await asked(world)
            with anyio.fail_after(30):
                while not log.problems:  # noqa: ASYNC110 - it is sent in the background
                    await anyio.sleep(0.01)
    assert service.came == []


# --- settings and secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"slack://{PASSWORD}", "URL 2 (slack) is incomplete, or names a service that Apprise does not know"),
        (f"nosuch://{PASSWORD}", "URL 2 (nosuch) is incomplete, or names a service"),
        (f"https://example.com/{PASSWORD}", "URL 2 (https) is incomplete, or names a service"),
        (f"file:///{PASSWORD}", "URL 2 (file) is incomplete, or names a service"),
        ("syslog://user", "URL 2 (syslog) is for notifications on this machine"),
        (f"ntfys://a:{PASSWORD}@h/t?verify=no", "URL 2 (ntfys) has verify=no, but certificates are always verified"),
        (f"ntfys://a:{PASSWORD}@h/t?attach=https://x/y", "URL 2 (ntfys) has an attachment or a template"),
        (f"{SLACK}?template=/{PASSWORD}", "URL 2 (slack) has an attachment or a template"),
    ],
)
def test_url_that_cannot_be_used_is_named_by_its_number(
    url: str, why: str, log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        services_of(notifying("ntfy://approvals", url))
    assert str(caught.value).startswith(f"The setting notify is wrong: {why}")
    assert PASSWORD not in f"{caught.value}{caught.value.__cause__}{log.lines}{capfd.readouterr()}"


def test_services_of_this_machine_are_known_by_their_addresses() -> None:
    """Those that Apprise has for the machine that it runs on. Its others each name a host or an account."""
    manager: Any = NotificationManager()
    services = {str(plugin.service_name) for plugin in manager.plugins() if "{schema}://" in plugin.templates}
    assert services == {
        *("DBus Notification", "GLib Notification", "Gnome Notification", "MacOSX Notification", "Syslog"),
        *("Windows Notification", "blink(1)"),
    }


def test_urls_are_secrets() -> None:
    with_comma = f"mailto://a:{PASSWORD}%21@h.example/?to=b@h.example,c@h.example"
    settings = load({}, {"FASTN_API_KEY": "k", "FASTN_NOTIFY": f"{SLACK}, {with_comma}\n{DISCORD}"}, None)
    assert settings.notify == [SLACK, with_comma, DISCORD]
    assert {SLACK, with_comma, DISCORD, f"{PASSWORD}%21", f"{PASSWORD}!"} <= set(settings.secrets)
    for secret in settings.secrets[1:]:
        assert secret not in repr(settings)
    assert [service.name for service in services_of(settings)] == ["Slack", "E-Mail", "Discord"]
    assert PASSWORD not in repr(services_of(settings))


async def test_url_is_not_logged(tmp_path: Path, log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    with http_service([500] * 100) as failing, mail_server(tmp_path) as mail:
        wrong = mail.url(f"robot:{PASSWORD}@")
        gone = f"ntfy://a:{PASSWORD}@127.0.0.1:1/{PASSWORD}"
        failing_path = f"json://127.0.0.1:{failing.port}/{PASSWORD}"
        for number, url in enumerate([ntfy_url(failing), gone, wrong, failing_path], 1):
            before = len(log.problems)
            async with notified(tmp_path / str(number), url) as world:
                await asked(world)
                with anyio.fail_after(30):
                    while len(log.problems) == before:  # noqa: ASYNC110 - it is sent in the background
                        await anyio.sleep(0.01)
    assert {problem.partition(" did not take a notification")[0] for problem in log.problems} == {
        *("ntfy (URL 1)", "E-Mail (URL 1)", "JSON (URL 1)")
    }
    assert PASSWORD not in f"{log.lines}{capfd.readouterr()}"


async def test_exception_of_a_service_is_named_by_its_class(
    tmp_path: Path, ntfy: HttpService, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify: Any = cast("Any", Apprise).notify
    attempts: list[str] = []

    def fails_once(service: Apprise, body: str, *more: Any, **options: Any) -> Any:
        attempts.append(body)
        if len(attempts) == 1:
            raise KeyError(PASSWORD)
        return notify(service, body, *more, **options)

    monkeypatch.setattr(Apprise, "notify", fails_once)
    async with notified(tmp_path, ntfy_url(ntfy)) as world:
        await asked(world)
        await told(world, "ntfy")
    assert log.problems == ["ntfy (URL 1) did not take a notification: Apprise failed (KeyError)"]


def test_channel_keeps_what_it_wraps(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.desk.notifies = False
    channel = NotifyingChannel(world.desk, services_of(notifying(SLACK)), world.ledger, world.system)
    assert (channel.capabilities.notifies, channel.capabilities.identifies_people, channel.capabilities.page) == (
        True,
        False,
        None,
    )
    world.desk.url = "https://mcp.example/approvals/"
    assert channel.capabilities.page == world.desk.url


async def test_address_of_the_page_is_kept(tmp_path: Path, ntfy: HttpService) -> None:
    async with notified(tmp_path, ntfy_url(ntfy)) as world:
        world.desk._channel.url = "https://mcp.example/approvals/"
        assert (await asked(world)).page == "https://mcp.example/approvals/"


@pytest.mark.extension("doctor", "team")
def test_apprise_is_imported_only_where_it_is_set_up() -> None:
    code = (
        "import sys, fastn_mcp.cli.serve, fastn_mcp.build.composition\n"
        "import fastn_mcp.extensions.doctor.command, fastn_mcp.extensions.team.builder\n"
        "sys.exit(' '.join({'apprise', 'requests', 'fastn_mcp.channels.notification'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- the program ---------------------------------------------------------------------------------------------------


def environment(folder: Path, *urls: str) -> dict[str, str]:
    paths = {name: str(folder) for name in ("HOME", "FASTN_STATE_DIR", "FASTN_CONFIG_DIR")}
    return {**paths, "FASTN_NOTIFY": ",".join(urls), "FASTN_APPROVAL_WAIT_SECONDS": "3", "FASTN_LOG_LEVEL": "debug"}


CALL = ["--sandbox", "call", "invite-user", "--email", f"{CANARY}@acme.example", "--role", "Viewer"]


def test_call_of_the_program_notifies(tmp_path: Path, ntfy: HttpService) -> None:
    done = run_command(CALL, environment(tmp_path, ntfy_url(ntfy)))
    (post,) = ntfy.came
    assert 'invite_user, asked by "local"' in post.json["message"]
    assert "approvals" in post.json["message"]
    assert CANARY not in post.body
    assert "Notified at" in done.stdout + done.stderr or "A notification goes to ntfy." in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "why"),
    [(f"slack://{PASSWORD}", "URL 1 (slack) is incomplete"), (PASSWORD, "it has a value that is not a URL such as")],
)
def test_wrong_url_stops_the_start(tmp_path: Path, url: str, why: str) -> None:
    line = error_line(run_command(CALL, environment(tmp_path, url)), "notify (environment FASTN_NOTIFY) is wrong", why)
    assert PASSWORD not in line


@pytest.mark.extension("doctor")
def test_doctor_names_the_services(tmp_path: Path, ntfy: HttpService) -> None:
    for urls, finding in (
        ([ntfy_url(ntfy), SLACK], "Each URL of notify is of a known service. ntfy, Slack."),
        ([ntfy_url(ntfy), f"slack://{PASSWORD}"], "URL 2 (slack) is incomplete"),
    ):
        done = run_command(["--sandbox", "doctor"], environment(tmp_path, *urls) | {"COLUMNS": "400"})
        assert finding in done.stdout
        assert PASSWORD not in done.stdout + done.stderr
    assert ntfy.came == []


def test_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.delitem(sys.modules, "fastn_mcp.channels.notification")
    done = run_command(CALL, environment(tmp_path, SLACK))
    error_line(done, "notify is set, but the library for it is not installed.", "pip install '.[notify]'")
