"""A person at an approval page, without a browser: cookies, key files, forms and their hidden fields."""

import html
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio
import httpx2

from support.values import not_none


def words(page: str) -> str:
    """Return the text of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def hidden(form: str) -> dict[str, str]:
    """Return the hidden fields of a form."""
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))


def posted_by(file: str) -> tuple[str, dict[str, str]]:
    """Return what a key file posts, and where."""
    text = Path(unquote(urlsplit(file).path)).read_text()
    (action,) = re.findall(r'action="([^"]+)"', text)
    return action, hidden(text)


@dataclass
class Visitor:
    """HTTP client with a browser's cookies, and the forms that it was shown. `http` may reach any replica of a page."""

    http: httpx2.AsyncClient
    origin: str
    provided: Callable[[str, str], Awaitable[str]] | None = None
    """Returns where the identity provider of a team sends a person back to, from the address of its sign-in."""
    room: str = "/approvals/"
    """The path under which everything lies."""

    async def sign_in(self, person: str) -> httpx2.Response:
        """Sign in at the provider and return the response of the callback."""
        return await self.http.get(await self.way_back(person))

    async def way_back(self, person: str) -> str:
        """Return the path of the callback that the provider redirects to."""
        to = await self.http.get(f"{self.room}login?next=https://evil.example/")
        assert to.status_code == 303
        back = await not_none(self.provided)(to.headers["location"], person)
        assert back.startswith(f"{self.origin}/")
        return urlsplit(back)._replace(scheme="", netloc="").geturl()

    async def look(self, place: str = "", status: int = 200) -> str:
        answer = await self.http.get(self.room + place)
        assert answer.status_code == status, answer.text
        return answer.text

    async def read(self) -> str:
        """Return the words of the page."""
        return words(await self.look())

    async def until(self, text: str) -> str:
        """Return the words of the page once they hold a text. Its events say when to look."""
        page = ""
        with anyio.move_on_after(30):
            async with self.http.stream("GET", f"{self.room}events") as events:
                async for line in events.aiter_lines():
                    if line == "event: changed" and text in (page := await self.read()):
                        return page
        raise AssertionError(f"the page does not say {text!r}: {page}")

    async def form(self, action: str, about: str = "", place: str = "") -> dict[str, str]:
        """Return the hidden fields of a form on the page, with that request in them if one is named."""
        page = away = "The ledger cannot be reached"
        with anyio.move_on_after(30):
            while away in page:  # on a busy machine it may answer too late: the person looks again
                page = (await self.http.get(self.room + place)).text
        for form in re.finditer(rf'<form[^>]*action="{self.room}{action}".*?</form>', page, re.DOTALL):
            if about in ("", *(fields := hidden(form[0])).values()):
                return fields
        raise AssertionError(f"no form to {action} {about}: {words(page)}")

    async def send(self, action: str, fields: dict[str, str], **headers: str) -> httpx2.Response:
        return await self.http.post(self.room + action, data=fields, headers={"Origin": self.origin} | headers)

    async def decide(self, action: str, about: str = "", **fields: str) -> httpx2.Response:
        extent = {"extent": "once"} if action == "approve" else {}
        return await self.send(action, await self.form(action, about) | extent | fields)

    async def approve(self, **fields: str) -> httpx2.Response:
        return await self.decide("approve", **fields)
