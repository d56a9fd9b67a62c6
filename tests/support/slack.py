"""A Slack on the loopback: the Web API and Socket Mode, over real HTTP and WebSockets, for Slack's own SDK.

It refuses what Slack refuses: tokens of the wrong kind, blocks and views that are too long or of the wrong shape, late
trigger ids, used tickets. An envelope that is not acknowledged within three seconds is delivered again, to the next
connection. The limits are those of the SDK's models, https://docs.slack.dev/reference/block-kit and each method's page.
"""

import asyncio
import gc
import itertools
import json
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from aiohttp import WSMsgType, web
from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View

T = TypeVar("T")
Json = dict[str, Any]

BOT, APP, TEAM, CHANNEL = "xoxb-1-canary-of-the-bot", "xapp-1-canary-of-the-app", "T0TEAM", "C0CHANNEL"
_TRIGGER_HOLDS = 3.0


class Invalid(Exception):
    """What Slack answers with `ok: false`, and this error."""


def _require(holds: object, error: str, what: Any = "") -> None:
    if not holds:
        raise Invalid(f"{error} {what}".strip())


def _accept(model: Callable[[], Any], sent: Json, error: str) -> None:
    """Require that the model of Slack's SDK accepts all of this, and that its texts have no markup."""
    try:
        _require((made := model()) is not None and made.to_dict() == sent, error, sent)
    except SlackObjectFormationError as refused:
        raise Invalid(f"{error} {refused}") from refused
    _require(all(text["type"] == "plain_text" and not text.get("emoji", True) for text in _texts(sent)), error, sent)


def _texts(value: Any) -> Iterator[Json]:
    """Yield the text objects in this."""
    if isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from _texts(part)
    elif isinstance(value, dict):
        fields = cast("Json", value)
        if isinstance(fields.get("text"), str):
            yield fields
        yield from _texts([*fields.values()])


def check_blocks(blocks: Any, most: int, kinds: set[str]) -> None:
    _require(blocks and len(blocks) <= most, "invalid_blocks", len(blocks))
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    _require(len(ids) == len(set(ids)), "invalid_blocks", ids)
    for block in blocks:
        _require(block.get("type") in kinds, "invalid_blocks", block)
        _accept(partial(Block.parse, block), block, "invalid_blocks")  # pyright: ignore[reportUnknownMemberType]
        names = [element["action_id"] for element in block.get("elements", ())]
        _require(len(names) == len(set(names)), "invalid_blocks", names)
        _require(0 < block.get("element", {}).get("max_length", 1) <= 3000, "invalid_blocks", block)


def check_view(view: Any) -> None:
    _require(view["type"] == "modal", "invalid_arguments", view)
    _accept(partial(View, **view), view, "invalid_arguments")
    check_blocks(view["blocks"], 100, {"section", "header", "input"})
    has_input = any(block["type"] == "input" for block in view["blocks"])
    _require("submit" in view or not has_input, "invalid_arguments", "a modal with an input needs submit")


def words(blocks: list[Json]) -> str:
    """Return what a person reads, without buttons. Slack shows escaped characters as they were meant."""
    texts = [block["text"]["text"] for block in blocks if "text" in block]
    return "\n".join(texts).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@dataclass
class Message:
    channel: str
    ts: str
    body: Json
    earlier: list[Json] = field(default_factory=list[Json])

    @property
    def buttons(self) -> dict[str, Json]:
        elements = [each for block in self.body["blocks"] if block["type"] == "actions" for each in block["elements"]]
        return {each["action_id"].removeprefix("fastn_mcp_"): each for each in elements}

    @property
    def as_it_was(self) -> "Message":
        """Return the message as a client shows it that did not hear of its change."""
        return Message(self.channel, self.ts, self.earlier[0])

    @property
    def text(self) -> str:
        return words(self.body["blocks"])


@dataclass
class Delivery:
    """An envelope, and what the app answered: None if only that it has it."""

    attempts: list[Json] = field(default_factory=list[Json])
    answers: list[Json | None] = field(default_factory=list[Json | None])


@dataclass
class Slack:
    """The workspace. Its methods are called from any thread; `run` brings them to the loop that serves it."""

    loop: asyncio.AbstractEventLoop
    url: str = ""
    acknowledge_within: float = 3.0
    messages: list[Message] = field(default_factory=list[Message])
    whispers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Users, and what only they were shown."""
    calls: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])
    faults: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """What the next calls of a method are answered: an error, a status of HTTP, `lost`, or `portal`: another's text."""
    members: set[str] = field(default_factory=lambda: {CHANNEL})
    departed: set[str] = field(default_factory=set[str])
    bad_tickets: int = 0
    """How many of the next connections are refused."""
    opened: dict[str, Json] = field(default_factory=dict[str, Json])
    """The dialog that each user has open."""
    opens_dialogs: bool = True
    """Whether trigger ids are still good when they come."""
    sockets: list[web.WebSocketResponse] = field(default_factory=list[web.WebSocketResponse])
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _tickets: set[str] = field(default_factory=set[str])
    _triggers: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    _waiting: dict[str, "asyncio.Future[Json | None]"] = field(default_factory=dict[str, Any])

    # --- the Web API -------------------------------------------------------------------------------------------

    async def api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        if request.content_type == "application/json":
            arguments = await request.json()
        else:
            arguments = dict(await request.post())
        self.calls.append((method, arguments))
        fault = faults.pop(0) if (faults := self.faults.get(method)) else None
        if fault == "429":
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "1"})
        if fault == "lost":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if fault == "portal":
            return web.Response(text="Sign in to the network.")
        if fault == "bare":
            return web.json_response({"ok": True})
        try:
            _require(fault is None, fault or "")
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            _require(token, "not_authed")
            right = APP if method == "apps.connections.open" else BOT
            _require(token == right or token in (APP, BOT), "invalid_auth")
            _require(token == right, "not_allowed_token_type")
            json_is_fine = method.startswith(("chat.", "views.")) or not arguments
            _require(json_is_fine or request.content_type != "application/json", "invalid_arguments")
            return web.json_response({"ok": True, **self._answer(method, arguments)})
        except Invalid as error:
            return web.json_response({"ok": False, "error": str(error).split(" ")[0], "detail": str(error)})

    def _answer(self, method: str, given: Json) -> Json:
        match method:
            case "auth.test":
                return {"team": "Acme", "team_id": TEAM, "user": "fastn", "user_id": "U0BOT"}
            case "apps.connections.open":
                self._tickets.add(ticket := f"ticket-{next(self._numbers)}")
                return {"url": f"{self.url.replace('http', 'ws', 1)}link/?ticket={ticket}"}
            case "conversations.info":
                _require(given["channel"] in (CHANNEL, "C0OTHER"), "channel_not_found")
                return {"channel": {"name": "approvals", "is_member": given["channel"] in self.members}}
            case "chat.postMessage":
                return self._post(given)
            case "chat.update":
                same = [each for each in self.messages if (each.channel, each.ts) == (given["channel"], given["ts"])]
                _require(same, "message_not_found")
                check_blocks(given["blocks"], 50, {"section", "header", "actions"})
                same[0].earlier.append(same[0].body)
                same[0].body = given
                return {"channel": given["channel"], "ts": given["ts"]}
            case "chat.postEphemeral":
                check_blocks(given["blocks"], 50, {"section"})
                self.whispers.append((given["user"], words(given["blocks"])))
                return {"message_ts": f"{next(self._numbers)}.0"}
            case "views.open":
                user, until = self._triggers.pop(given["trigger_id"], ("", 0.0))
                _require(user, "invalid_trigger_id")
                _require(self.opens_dialogs and time.monotonic() < until, "expired_trigger_id")
                check_view(given["view"])
                self.opened[user] = given["view"] | {"id": f"V{next(self._numbers)}"}
                return {"view": self.opened[user]}
            case _:
                raise Invalid("unknown_method")

    def _post(self, given: Json) -> Json:
        channel = given["channel"]
        _require(channel not in self.departed, "user_not_found")
        _require(channel in self.members or channel.startswith("U"), "not_in_channel")
        channel = f"D{channel[1:]}" if channel.startswith("U") else channel
        check_blocks(given["blocks"], 50, {"section", "header", "actions"})
        _require(given["text"], "no_text")
        message = Message(channel, f"{next(self._numbers)}.000100", given)
        self.messages.append(message)
        return {"channel": channel, "ts": message.ts}

    # --- Socket Mode -------------------------------------------------------------------------------------------

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        ticket = request.query["ticket"]
        if ticket not in self._tickets:
            raise web.HTTPForbidden
        self._tickets.remove(ticket)
        if self.bad_tickets:
            self.bad_tickets -= 1
            raise web.HTTPForbidden
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "hello", "num_connections": len(self.sockets) + 1})
        self.sockets.append(socket)
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    answer = json.loads(frame.data)
                    if (waiting := self._waiting.get(answer["envelope_id"])) and not waiting.done():
                        waiting.set_result(answer.get("payload"))
        finally:
            self.sockets.remove(socket)
        return socket

    async def _deliver(self, payload: Json) -> Delivery:
        """Deliver an envelope until it is acknowledged, three times at most, each time to the next connection."""
        delivery, id_ = Delivery(), f"envelope-{next(self._numbers)}"
        envelope = {"type": "interactive", "envelope_id": id_, "payload": payload, "accepts_response_payload": True}
        for attempt in range(3):
            await until(lambda: self.sockets)
            self._waiting[id_] = asyncio.get_running_loop().create_future()
            retry = {"retry_attempt": attempt, "retry_reason": "timeout"} if attempt else {}
            delivery.attempts.append(envelope | retry)
            self.sockets.append(socket := self.sockets.pop(0))
            await socket.send_json(envelope | retry)
            try:
                delivery.answers.append(await asyncio.wait_for(self._waiting[id_], self.acknowledge_within))
                break
            except TimeoutError:
                continue
        return delivery

    async def disconnect(self) -> None:
        """Tell the oldest connection to be renewed, as Slack does every few hours, and close it."""
        socket = self.sockets[0]
        await socket.send_json({"type": "disconnect", "reason": "refresh_requested"})

    # --- people ------------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> "Awaitable[T]":
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def press(self, user: str, message: Message, choice: str, *, team: str = TEAM, **edits: Any) -> Delivery:
        """Press a button of a message, by default as it is now. `edits` change its `value`."""
        button = deepcopy(edits.pop("button", None) or message.buttons[choice])
        button["value"] = json.dumps(json.loads(button["value"]) | edits)
        trigger = f"trigger-{next(self._numbers)}"
        self._triggers[trigger] = (user, time.monotonic() + _TRIGGER_HOLDS)
        payload = {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user, "team_id": team},
            "trigger_id": trigger,
            "container": {"type": "message", "message_ts": message.ts, "channel_id": message.channel},
            "channel": {"id": message.channel},
            "actions": [{**button, "block_id": "fastn_mcp_approval", "action_ts": "1.0"}],
        }
        return await self.run(self._deliver(payload))

    async def submit(
        self, user: str, view: Json | None = None, *, team: str | None = TEAM, edits: Json | None = None, **values: Any
    ) -> str:
        """Submit a dialog, by default the one that the user has open. Return what it then shows; empty if it closed."""
        view = deepcopy(view or self.opened[user])
        if edits:
            view["private_metadata"] = json.dumps(json.loads(view["private_metadata"]) | edits)
        inputs = {block["block_id"] for block in view["blocks"] if block["type"] == "input"}
        state = {name: {name: {"type": "plain_text_input", "value": values.get(name)}} for name in inputs}
        payload = {
            "type": "view_submission",
            "team": team and {"id": TEAM},
            "user": {"id": user, "team_id": team},
            "view": {**view, "state": {"values": state}},
        }
        delivery = await self.run(self._deliver(payload))
        assert delivery.answers, "Slack shows that the app did not answer"
        match delivery.answers[-1]:
            case None:
                self.opened.pop(user, None)
                return ""
            case {"response_action": "errors", "errors": fields}:
                errors = cast("dict[str, str]", fields)
                assert errors.keys() <= inputs, errors
                return " ".join(errors.values())
            case answer:
                assert answer["response_action"] == "update", answer
                check_view(answer["view"])
                self.opened.pop(user, None)
                return words(answer["view"]["blocks"])

    async def opens(self, user: str, message: Message, choice: str = "approve") -> Json:
        """Press a button, and return the dialog that it opens."""
        await self.press(user, message, choice)
        await until(lambda: user in self.opened)
        return self.opened[user]

    async def decide(self, user: str, message: Message, choice: str = "approve", **values: Any) -> str:
        """Press a button and submit its dialog. Return what that shows; empty if it was taken."""
        self.opened.pop(user, None)
        heard = len(self.whispers)
        await self.press(user, message, choice)
        await until(lambda: user in self.opened or len(self.whispers) > heard)
        return await self.submit(user, **values) if user in self.opened else self.whispers[-1][1]


async def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds, which other tasks or processes bring about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not become so"
        await asyncio.sleep(0.01)


@contextmanager
def served_slack() -> Generator[Slack]:
    """Serve a workspace from a thread of its own until the block ends."""
    loop = asyncio.new_event_loop()
    slack = Slack(loop)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.post("/api/{method}", slack.api), web.get("/api/link/", slack.link)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        slack.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/"
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield slack
    finally:
        with warnings.catch_warnings():  # of connections that the SDK opened while the server ended
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()
            del runner
            gc.collect()
