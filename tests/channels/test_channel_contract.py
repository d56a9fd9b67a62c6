"""The contract of every channel behind the door, and what channels that are asked together make of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest
from support.approval_world import PAGE
from support.clock import SteadyClock
from support.page_world import API_KEY, deletion_of_customer
from support.page_world import Desk as PageDesk
from support.webhook_world import SECRET, URL, WebhookWorld
from support.world import World
from typing_extensions import override

from fastn_mcp.build.extensions import SECTIONS, ChannelOpening, channel_door
from fastn_mcp.channels import group as group_module
from fastn_mcp.channels.approvers import ApproverAnswers
from fastn_mcp.channels.elicitation import FormInResult
from fastn_mcp.channels.group import ChannelGroup
from fastn_mcp.channels.notification import NotifyingChannel
from fastn_mcp.channels.page.page import read_page_file
from fastn_mcp.channels.terminal import TerminalChannel
from fastn_mcp.config.load import load
from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval.votes import unrecorded
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities, NobodyAble
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.ledger import Ledger

pytestmark = pytest.mark.usefixtures("foreign_extensions")

APPROVERS = """
[[approvals.approver]]
groups = ["approvers"]
"""


@dataclass
class Subject:
    """A channel, its ledger, how often it has brought a request before people, and what no agent may read."""

    channel: Channel
    ledger: Ledger
    shown: Callable[[], int] = lambda: 0
    secrets: Sequence[str] = ()


@asynccontextmanager
async def terminal(folder: Path) -> AsyncGenerator[Subject]:
    yield Subject(TerminalChannel("fastn-mcp approvals"), World(folder).ledger)


@asynccontextmanager
async def page(folder: Path) -> AsyncGenerator[Subject]:
    desk = PageDesk(folder / "page.json")
    try:
        desk.page._start()  # pyright: ignore[reportPrivateUsage] - its key is known before it is asked
        _, key = read_page_file(desk.page_file) or ("", "")
        yield Subject(desk.page, desk.ledger, lambda: len(desk.opened), [key])
    finally:
        await desk.aclose()


@asynccontextmanager
async def webhook(folder: Path) -> AsyncGenerator[Subject]:
    world = WebhookWorld(folder)
    secrets = [SECRET, URL.rpartition("/")[2]]
    yield Subject(world.asking(), world.ledger, lambda: len(world.receiver.came), secrets)


@asynccontextmanager
async def slack(folder: Path) -> AsyncGenerator[Subject]:
    from support.slack import APP, BOT, served_slack
    from support.slack_world import slack_world

    with served_slack() as service:
        async with slack_world(folder, service) as world:
            yield Subject(world.channel, world.ledger, lambda: len(service.messages), [APP, BOT])


@asynccontextmanager
async def folder(folder: Path) -> AsyncGenerator[Subject]:
    """A channel of somebody else's, opened by its entry point."""
    requests = folder / "requests"
    requests.mkdir(mode=0o700)
    (folder / "config.toml").write_text(f'[extensions.folder]\npath = "{requests}"\n')
    settings = load({}, {"FASTN_API_KEY": "k"}, folder / "config.toml", sections=SECTIONS)
    world = World(folder)
    answers = ApproverAnswers("test", "", world.ledger, world.audit, world.system)
    opening = ChannelOpening(answers, unrecorded, issuer=None, tenant="", follow=lambda _: None, only=True)
    channel = channel_door("folder").open_channel(settings, opening)
    yield Subject(channel, world.ledger, lambda: len(list(requests.iterdir())))
    await channel.aclose()


@asynccontextmanager
async def notifying(folder: Path) -> AsyncGenerator[Subject]:
    world = World(folder)
    desk = world.desk
    yield Subject(NotifyingChannel(desk, [], world.ledger, world.system), world.ledger, lambda: len(set(desk.shown)))


@asynccontextmanager
async def page_of_a_team(folder: Path) -> AsyncGenerator[Subject]:
    from support.team_world import ACME, HEAD, KEYS, TeamWorld, tenant

    from fastn_mcp.extensions.team.approvers import TenantPage

    team = TeamWorld(
        folder, HEAD + PAGE + APPROVERS + tenant("acme", **ACME), environment=KEYS | {"PAGE_SECRET": "egap" * 8}
    )
    yield Subject(TenantPage(team.team, "acme"), World(folder).ledger, secrets=["egap" * 8])


CHANNELS = [
    terminal,
    page,
    webhook,
    pytest.param(slack, marks=pytest.mark.extension("slack")),
    folder,
    notifying,
    pytest.param(page_of_a_team, marks=pytest.mark.extension("team")),
]


@pytest.fixture(params=CHANNELS, ids=lambda each: each.__name__)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Subject]:
    async with request.param(tmp_path) as made:
        yield made


async def opened(subject: Subject, **facts: object) -> ApprovalRequest:
    request = deletion_of_customer("ap_contract", **facts)
    await subject.ledger.open(request)
    return request


async def test_channel_says_where_people_decide_and_nothing_secret(subject: Subject) -> None:
    request = await opened(subject)
    announced = await subject.channel.ask(request)
    assert isinstance(announced, Announcement)
    assert announced.places
    text = f"{announced.sentence(request)} {subject.channel.capabilities}"
    assert text.startswith("A person has to approve ")
    assert [secret for secret in subject.secrets if not secret or secret in text] == []


async def test_channel_shows_a_request_once_however_often_its_call_is_repeated(subject: Subject) -> None:
    request = await opened(subject)
    await subject.channel.ask(request)
    shown = subject.shown()
    for _ in range(3):
        stored = await subject.ledger.find(request.id)
        assert stored is not None
        await subject.channel.ask(stored)
    assert subject.shown() == shown


async def test_asking_decides_nothing(subject: Subject) -> None:
    request = await opened(subject)
    await subject.channel.ask(request)
    stored = await subject.ledger.find(request.id)
    assert stored is not None
    assert (stored.state, stored.votes) == (RequestState.OPEN, ())


async def test_update_of_what_is_over_ends(subject: Subject) -> None:
    request = await opened(subject)
    await subject.channel.ask(request)
    over = replace(request, state=RequestState.DECLINED, expires=request.created)
    assert await subject.channel.update(over, ())


async def test_place_for_a_secret_is_one_that_takes_it(subject: Subject) -> None:
    request = await opened(subject, typed=API_KEY, tool="create_connection", target=None)
    try:
        announced = await subject.channel.ask(request)
    except NobodyAble:
        assert not subject.channel.capabilities.takes_secrets
        return
    assert isinstance(announced, Announcement)
    assert bool(announced.places) == subject.channel.capabilities.takes_secrets


async def test_form_of_a_later_call_answers_nothing_now() -> None:
    assert await FormInResult().ask(deletion_of_customer()) is None


@dataclass
class Fake(Channel):
    """A channel of somebody else's. It takes requests once `gate` is open, or raises its `problem`."""

    name: str
    identifies_people: bool = True
    problem: Exception | None = None
    gate: anyio.Event | None = None
    asked: list[str] = field(default_factory=list[str])
    updates: list[RequestState] = field(default_factory=list[RequestState])

    @property
    @override
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(identifies_people=self.identifies_people, shows_outcome=True)

    @override
    async def ask(self, request: ApprovalRequest) -> Announcement:
        self.asked.append(request.id)
        if self.gate is not None:
            await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return Announcement((f"in {self.name}",))

    @override
    async def update(self, request: ApprovalRequest, changes: Sequence[Change]) -> bool:
        self.updates.append(request.state)
        return request.state is not RequestState.OPEN


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path, clock=SteadyClock())


def group_of(world: World, *channels: Channel) -> ChannelGroup:
    group = ChannelGroup(world.ledger, world.system, "test", "")
    for each in channels:
        group.add(each)
    return group


@pytest.mark.parametrize("needed", ["confirm", "four_eyes"])
async def test_only_channels_that_tell_people_apart_are_asked_for_two(world: World, needed: str) -> None:
    anonymous, known = Fake("a file", identifies_people=False), Fake("the chat")
    group = group_of(world, anonymous, known)
    announced = await group.ask(deletion_of_customer(required=needed))
    assert announced.places == (("in a file", "in the chat") if needed == "confirm" else ("in the chat",))
    assert len(anonymous.asked) == int(needed == "confirm")
    await group.aclose()


async def test_failed_channel_is_told_beside_the_others(world: World) -> None:
    group = group_of(world, Fake("the chat", problem=Refused("The chat is down.", "Wait.")), Fake("a file"))
    request = deletion_of_customer()
    assert (await group.ask(request)).sentence(request) == "A person has to approve in a file. The chat is down."
    await group.aclose()


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ([Refused("The chat is down.")], "Nobody could be asked. The chat is down."),
        ([NobodyAble("No approver has this effect.")], "No approver has this effect."),
        ([NobodyAble("No approver has this effect."), Refused("Down.")], "Nobody could be asked. Down."),
        ([OSError("no port"), OSError("no port")], "Nobody could be asked. The channel 0 failed."),
        ([], "No channel of this server can show the request."),
    ],
)
async def test_request_that_nobody_can_be_asked_about_is_refused(
    world: World, problems: list[Exception], message: str
) -> None:
    group = group_of(world, *(Fake(f"channel {n}", problem=each) for n, each in enumerate(problems)))
    with pytest.raises(Refused) as refused:
        await group.ask(deletion_of_customer())
    assert refused.value.what == message
    await group.aclose()


async def test_slow_channel_does_not_hold_up_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "_PATIENCE", 0.01)
    slow = Fake("the chat", gate=anyio.Event())
    group = group_of(world, slow, Fake("a file"))
    announced = await group.ask(deletion_of_customer())
    assert (announced.places, announced.notes) == (("in a file",), ("Not reached yet: the chat.",))
    assert len(slow.asked) == 1
    await group.aclose()


async def test_slow_channels_are_waited_for_if_there_is_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "_PATIENCE", 0.01)
    gate = anyio.Event()
    group = group_of(world, Fake("the chat", gate=gate), Fake("a file", problem=Refused("Full.")))
    asyncio.get_running_loop().call_later(0.05, gate.set)
    announced = await group.ask(deletion_of_customer())
    assert (announced.places, announced.notes) == (("in the chat",), ("Full.",))
    await group.aclose()


async def test_what_becomes_of_a_request_is_shown_until_it_is_over(world: World) -> None:
    chat = Fake("the chat")
    group = group_of(world, chat)
    pending = deletion_of_customer("ap_followed")
    await world.ledger.open(pending)
    await group.ask(pending)
    with anyio.fail_after(20):
        while not chat.updates:  # noqa: ASYNC110 - shown in the background
            await anyio.sleep(0.01)
        await world.ledger.void(pending.id, RequestState.STALE, world.timestamp)
        while chat.updates[-1] is RequestState.OPEN:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    await group.aclose()


async def test_new_process_goes_on_showing_open_requests(world: World) -> None:
    chat = Fake("the chat")
    group = group_of(world, chat)
    pending = deletion_of_customer("ap_earlier", account="test")
    await world.ledger.open(pending)
    group.begin()
    with anyio.fail_after(20):
        while not chat.updates:  # noqa: ASYNC110 - shown in the background
            await anyio.sleep(0.01)
    await group.aclose()
