"""A person at the page of `fastn-mcp sandbox --issuer`, who chooses to be one of its two people."""

import re

import httpx2


class Chooser:
    """A browser without a screen, in which `person` is chosen."""

    def __init__(self, person: str) -> None:
        self.person = person

    async def authorize(self, url: str) -> str:
        """Open an authorization address and return the redirect address, with its query."""
        async with httpx2.AsyncClient(timeout=30) as http:
            page = await http.get(url)
            assert self.person in re.findall(r'<button name="person" value="(\w+)"', page.text), page.text
            return (await http.post(url, data={"person": self.person})).headers["location"]
