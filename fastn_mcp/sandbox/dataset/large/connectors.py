"""The rest of the catalogue, and what the account made itself."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.dataset.connectors import OWN, connector
from fastn_mcp.sandbox.dataset.large.catalogue import CATEGORIES, OWN_NAMES
from fastn_mcp.sandbox.slugs import camel_of
from fastn_mcp.sandbox.state import Row, State

_AUTH = {"OAUTH_2": 6, "API_KEY": 3, "BEARER": 1}
_PROTOCOLS = {"Database": "Database", "Files": "FTP"}


def add(state: State, now: datetime, randomness: random.Random) -> None:
    for category, kind in CATEGORIES.items():
        for name in kind.apps.split(", "):
            state.put("connectors", _connector(state, now, randomness, name, category))
    for name in OWN_NAMES:
        state.put("connectors", _connector(state, now, randomness, name, "ERP") | OWN)


def _connector(state: State, now: datetime, randomness: random.Random, name: str, category: str) -> Row:
    kind = CATEGORIES[category]
    (auth,) = randomness.choices([*_AUTH], [*_AUTH.values()])
    slug = camel_of(name)
    when = now - timedelta(days=randomness.randrange(20, 700))
    row = connector(state, slug, name, f"{slug.lower()}.example", auth, kind.actions, kind.events, when)
    return row | {"category": category, "protocol": _PROTOCOLS.get(category, "REST")}
