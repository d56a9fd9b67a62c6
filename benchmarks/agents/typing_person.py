"""The browser of the jobs' person: `python typing_person.py ADDRESS` approves on the page, and types the secret value.

The server under test runs it in place of a browser, where a call has to be approved outside the client.
"""

import sys
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.local_page import typed_on_the_page

if __name__ == "__main__":
    anyio.run(typed_on_the_page, sys.argv[1], "value")
