"""Sixty users, forty API keys and sixty secrets in all. Some keys were never used, some end soon, some are over."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.dataset.large.words import people
from fastn_mcp.sandbox.dataset.people import api_key, secret, user
from fastn_mcp.sandbox.keys import remember
from fastn_mcp.sandbox.slugs import slug_of
from fastn_mcp.sandbox.state import Row, State, stamp

_USERS, _KEYS, _SECRETS = 60, 40, 60

_ROLES = {"Admin": 2, "Developer": 8, "Operator": 6, "Viewer": 7, "Support read-only": 4}
_TEAMS = ("Billing", "Growth", "Support", "Data", "Platform", "Partner", "Finance")
_PURPOSES = ("export", "dashboard", "CI", "staging", "bridge", "alerts")
_PERMISSIONS = {"Viewer": 4, "Operator": 4, "Developer": 3, "Full access": 1}
_APPS = ("STRIPE", "SHOPIFY", "SLACK", "SENDGRID", "TWILIO", "NETSUITE", "KLAVIYO", "SNOWFLAKE", "AWS", "DHL", "XERO")
_KINDS = ("API_KEY", "WEBHOOK_SECRET", "CLIENT_SECRET", "SIGNING_KEY", "PASSWORD", "SERVICE_ACCOUNT")


def add(state: State, now: datetime, randomness: random.Random, customers: list[Row]) -> None:
    _users(state, now, randomness)
    _keys(state, now, randomness, customers)
    _secrets(state, now, randomness, customers)


def _users(state: State, now: datetime, randomness: random.Random) -> None:
    for name in people(_USERS - len(state.all("users")), randomness):
        email = f"{slug_of(name).replace('-', '.')}@fastn.example"
        (role,) = randomness.choices([*_ROLES], [*_ROLES.values()])
        made = now - timedelta(days=randomness.randrange(3, 500), minutes=randomness.randrange(1440))
        seen = None if randomness.randrange(10) == 0 else now - timedelta(minutes=int(randomness.paretovariate(0.5)))
        state.put("users", user(state.uuid(), name, email, role, made, None if seen is None else max(seen, made)))


def _keys(state: State, now: datetime, randomness: random.Random, customers: list[Row]) -> None:
    names = [f"{team} {purpose}" for team in _TEAMS for purpose in _PURPOSES]
    for number, name in enumerate(randomness.sample(names, _KEYS - len(state.all("apiKeys")))):
        mode = "Test" if "staging" in name or "CI" in name else "Live"
        (permissions,) = randomness.choices([*_PERMISSIONS], [*_PERMISSIONS.values()])
        row = api_key(state.next_number("apiKeys"), name, mode, permissions, now - timedelta(days=90 + 9 * number))
        match number % 7:
            case 0:
                row["expiresAt"] = stamp(now + timedelta(days=2 + number // 4, hours=5))
            case 1:
                row["expiresAt"] = stamp(now - timedelta(days=3 + number))
            case 2 | 3:
                row["expiresAt"] = stamp(now + timedelta(days=90 + 3 * number))
            case _:
                pass
        if number % 5:
            over = 3 + number if number % 7 == 1 else 0
            row["lastUsed"] = stamp(now - timedelta(days=over, minutes=randomness.randrange(1, 60 * 24 * 40)))
        if number % 6 == 5:
            row["customers"] = [customer["id"] for customer in randomness.sample(customers, 3)]
        remember(state, row, f"fsk_{mode.lower()}_{state.hex(48)}")


def _secrets(state: State, now: datetime, randomness: random.Random, customers: list[Row]) -> None:
    names = [f"{app}_{kind}" for app in _APPS for kind in _KINDS if f"{app}_{kind}" != "SHOPIFY_API_KEY"]
    for name in randomness.sample(names, _SECRETS - len(state.all("secrets"))):
        owner = randomness.choice(customers)["id"] if randomness.randrange(4) == 0 else None
        made = now - timedelta(days=randomness.randrange(2, 600), minutes=randomness.randrange(1440))
        kind = "JSON" if name.endswith("SERVICE_ACCOUNT") else "Text"
        row = secret(state.short_id("sec"), name, kind, owner, made)
        row["environment"] = randomness.choice((None, None, "live", "test"))
        state.put("secrets", row)
