"""A person at the approval page of a team, without a browser: cookies, forms and their hidden fields."""

import html
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpx2


def words(page: str) -> str:
    """Return the text of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@dataclass
class Visitor:
    """HTTP client with a browser's cookies and headers. `http` may reach any replica of the page at `site`."""

    http: httpx2.AsyncClient
    site: str
    provided: Callable[[str, str], Awaitable[str]]
    """Returns where the identity provider sends a person back to, from the address of its sign-in."""

    async def sign_in(self, person: str) -> httpx2.Response:
        """Sign in at the provider and return the response of the callback."""
        return await self.http.get(await self.way_back(person))

    async def way_back(self, person: str) -> str:
        """Return the path of the callback that the provider redirects to."""
        to = await self.http.get("/approvals/login?next=https://evil.example/")
        assert to.status_code == 303
        back = await self.provided(to.headers["location"], person)
        assert back.startswith(f"{self.site}/")
        return urlsplit(back)._replace(scheme="", netloc="").geturl()

    async def look(self) -> str:
        answer = await self.http.get("/approvals/")
        assert answer.status_code == 200, answer.text
        return words(answer.text)

    async def until(self, text: str) -> str:
        """Return the words of the page once they hold a text. Its events say when to look."""
        page = ""
        with anyio.move_on_after(30):
            async with self.http.stream("GET", "/approvals/events") as events:
                async for line in events.aiter_lines():
                    if line == "event: changed" and text in (page := await self.look()):
                        return page
        raise AssertionError(f"the page does not say {text!r}: {page}")

    async def form(self, action: str, request: str = "") -> dict[str, str]:
        """Return the hidden fields of the first form of an action, with that `request` open if there are many."""
        page = away = "The ledger cannot be reached"
        with anyio.move_on_after(30):
            while away in page:  # on a busy machine it may answer too late: the person looks again
                page = (await self.http.get("/approvals/", params={"request": request})).text
        match = re.search(rf'<form[^>]*action="/approvals/{action}".*?</form>', page, re.DOTALL)
        assert match is not None, f"no form to {action}: {words(page)}"
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', match[0]))

    async def send(self, action: str, fields: dict[str, str], **headers: str) -> httpx2.Response:
        return await self.http.post(f"/approvals/{action}", data=fields, headers={"Origin": self.site} | headers)

    async def approve(self, **fields: str) -> httpx2.Response:
        return await self.send("approve", {**await self.form("approve"), "extent": "once"} | fields)
