"""Two thousand customers, their connections, and the people of a large account."""

import random
from datetime import datetime, timedelta

from fastn_mcp.extensions.sandbox.auth import store_key
from fastn_mcp.extensions.sandbox.connectors import connection
from fastn_mcp.extensions.sandbox.customers import customer_row, pending_fields, user
from fastn_mcp.extensions.sandbox.keys import api_key, secret
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, parse_stamp, slug_of, stamp
from large_account.catalogue import OF_THE_ACCOUNT, POPULAR
from large_account.workflows import tenant_apps

_BEGINNINGS = (
    "Alder", "Amber", "Anchor", "Apex", "Arbor", "Atlas", "Aurora", "Beacon", "Birch", "Blue Harbor", "Bright",
    "Cascade", "Cedar", "Cobalt", "Copper", "Coral", "Crescent", "Crown", "Delta", "Eastgate", "Ember", "Evergreen",
    "Falcon", "Fern", "Foxglove", "Granite", "Greenfield", "Harvest", "Hazel", "Highland", "Horizon", "Ironwood",
    "Juniper", "Keystone", "Lakeside", "Lantern", "Larkspur", "Linden", "Lumen", "Magnolia", "Maple", "Meridian",
    "Mistral", "Northwind", "Oakline", "Orchard", "Osprey", "Pacific", "Pinnacle", "Prairie", "Quarry", "Quill",
    "Redwood", "Ridgeway", "Riverbend", "Rowan", "Saffron", "Sierra", "Silverline", "Solstice", "Sparrow",
    "Stonebridge", "Summit", "Tamarack", "Thistle", "Tidewater", "Umbra", "Valley", "Vantage", "Verdant",
    "Westbrook", "Willow", "Windmill", "Yarrow", "Zephyr",
)  # fmt: skip

_TRADES = (
    "Foods", "Logistics", "Supply", "Outfitters", "Robotics", "Textiles", "Apparel", "Furniture", "Interiors",
    "Coffee", "Brewing", "Bakery", "Organics", "Nutrition", "Pharma", "Medical", "Dental", "Optics", "Instruments",
    "Electronics", "Components", "Tools", "Hardware", "Packaging", "Print", "Media", "Studios", "Games", "Toys",
    "Sports", "Cycles", "Motors", "Marine", "Aviation", "Travel", "Hotels", "Energy", "Solar", "Materials",
    "Chemicals", "Steel", "Timber", "Ceramics", "Jewelry", "Cosmetics", "Pets", "Gardens", "Farms", "Seafood",
    "Wines",
)  # fmt: skip

_FORMS = ("", "", "", " Inc", " Ltd", " GmbH", " LLC", " Co", " Group", " BV")

NEARLY_THE_SAME = (
    "Acme Logistics", "Akme Foods", "Acme Foods", "ACME Corporation", "Acme Corp Europe", "Acmecorp", "Acme Co",
    "Widget Inc UK", "Widgets Inc", "Wigdet Ink", "Globex", "Globex Export", "Globex Exports BV", "Katana Foods",
    "Katana MRP Trading", "Catana", "John Acme", "Northwind", "North Wind Traders", "Meridian", "Meridien Foods",
    "Summit", "Sumit Supply", "Atlas", "Atlass Logistics",
)  # fmt: skip
"""Companies that are easily taken for another one."""

_FIRST = (
    "Amara", "Ana", "Anders", "Aisha", "Bruno", "Carmen", "Chen", "Chloe", "Daniel", "Diego", "Elena", "Emil",
    "Fatima", "Felix", "Grace", "Hana", "Hugo", "Ines", "Ivan", "Jonas", "Julia", "Kenji", "Lars", "Leila", "Lucas",
    "Maria", "Marek", "Nadia", "Nina", "Noah", "Olga", "Omar", "Pavel", "Rahul", "Rosa", "Sofia", "Tariq", "Vera",
    "Yuki", "Zoe",
)  # fmt: skip

_LAST = (
    "Abe", "Andersen", "Bakker", "Banerjee", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad",
    "Hoffmann", "Ivanova", "Jansen", "Kaya", "Kim", "Kowalski", "Larsen", "Lopez", "Meyer", "Mori", "Moreau",
    "Nguyen", "Novak", "Okoye", "Olsen", "Patel", "Petrov", "Quinn", "Rossi", "Santos", "Sato", "Silva", "Singh",
    "Tanaka", "Torres", "Usman", "Vargas", "Weber", "Wong", "Yilmaz",
)  # fmt: skip


def companies(count: int, randomness: random.Random) -> list[str]:
    """So many different names, those that are nearly the same among them."""
    plain = [f"{beginning} {trade}" for beginning in _BEGINNINGS for trade in _TRADES]
    chosen = randomness.sample(plain, count - len(NEARLY_THE_SAME))
    names = [name + randomness.choice(_FORMS) for name in chosen] + [*NEARLY_THE_SAME]
    randomness.shuffle(names)
    return names


def people(count: int, randomness: random.Random) -> list[str]:
    """So many different names."""
    return randomness.sample([f"{first} {last}" for first in _FIRST for last in _LAST], count)


_CUSTOMERS = 2_000
_PLANS = {"Free": 4, "Starter": 6, "Growth": 7, "Enterprise": 3}
_REGIONS = {"US": 5, "EU": 4, "APAC": 1}
_WAITING = 0.05
_REFERRED = 0.8


def add_customers(state: SandboxState, now: datetime, randomness: random.Random) -> list[Row]:
    """Keep them, and say which they are."""
    made: list[Row] = []
    admins = people(200, randomness)
    for number, name in enumerate(companies(_CUSTOMERS - len(state.all("customers")), randomness), 2_000):
        slug = slug_of(name)
        person = slug_of(randomness.choice(admins).split()[0])
        admin = f"{person}@{slug.replace('-', '')}.example"
        when = now - timedelta(minutes=randomness.randrange(600, 900 * 24 * 60))
        row = customer_row(state.uuid(), name, slug, admin, when)
        row["plan"] = randomness.choices([*_PLANS], [*_PLANS.values()])[0]
        row["region"] = randomness.choices([*_REGIONS], [*_REGIONS.values()])[0]
        if randomness.random() < _REFERRED:
            row["externalRef"] = f"crm-{number}"
        if randomness.random() < _WAITING:
            row |= pending_fields(admin)
        made.append(state.put("customers", row))
    return made


_USERS, _KEYS, _SECRETS = 60, 40, 60

_ROLES = {"Admin": 2, "Developer": 8, "Operator": 6, "Viewer": 7, "Support read-only": 4}
_TEAMS = ("Billing", "Growth", "Support", "Data", "Platform", "Partner", "Finance")
_PURPOSES = ("export", "dashboard", "CI", "staging", "bridge", "alerts")
_PERMISSIONS = {"Viewer": 4, "Operator": 4, "Developer": 3, "Full access": 1}
_APPS = ("STRIPE", "SHOPIFY", "SLACK", "SENDGRID", "TWILIO", "NETSUITE", "KLAVIYO", "SNOWFLAKE", "AWS", "DHL", "XERO")
_KINDS = ("API_KEY", "WEBHOOK_SECRET", "CLIENT_SECRET", "SIGNING_KEY", "PASSWORD", "SERVICE_ACCOUNT")


def add_people(state: SandboxState, now: datetime, randomness: random.Random, customers: list[Row]) -> None:
    _users(state, now, randomness)
    _keys(state, now, randomness, customers)
    _secrets(state, now, randomness, customers)


def _users(state: SandboxState, now: datetime, randomness: random.Random) -> None:
    for name in people(_USERS - len(state.all("users")), randomness):
        email = f"{slug_of(name).replace('-', '.')}@fastn.example"
        (role,) = randomness.choices([*_ROLES], [*_ROLES.values()])
        made = now - timedelta(days=randomness.randrange(3, 500), minutes=randomness.randrange(1440))
        seen = None if randomness.randrange(10) == 0 else now - timedelta(minutes=int(randomness.paretovariate(0.5)))
        state.put("users", user(state.uuid(), name, email, role, made, None if seen is None else max(seen, made)))


def _keys(state: SandboxState, now: datetime, randomness: random.Random, customers: list[Row]) -> None:
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
        store_key(state, row, f"fsk_{mode.lower()}_{state.hex(48)}")


def _secrets(state: SandboxState, now: datetime, randomness: random.Random, customers: list[Row]) -> None:
    names = [f"{app}_{kind}" for app in _APPS for kind in _KINDS if f"{app}_{kind}" != "SHOPIFY_API_KEY"]
    for name in randomness.sample(names, _SECRETS - len(state.all("secrets"))):
        owner = randomness.choice(customers)["id"] if randomness.randrange(4) == 0 else None
        made = now - timedelta(days=randomness.randrange(2, 600), minutes=randomness.randrange(1440))
        kind = "JSON" if name.endswith("SERVICE_ACCOUNT") else "Text"
        row = secret(state.short_id("sec"), name, kind, owner, made)
        row["environment"] = randomness.choice((None, None, "live", "test"))
        state.put("secrets", row)


_CONNECTIONS = 2_999
"""And the one of `large.add_example`."""
_BROKEN = 38
_SWITCHED_OFF = 20
_CUSTOMERS_WITH_BOTH = 14
_SETTLED = timedelta(days=60)
"""A connection that broke was there for a while."""


def add_connections(
    state: SandboxState, now: datetime, randomness: random.Random, customers: list[Row], workflows: list[Row]
) -> list[Row]:
    """Keep them, and say which of them are customers'."""
    connectors = {str(row["slug"]): row for row in state.all("connectors")}
    for app in OF_THE_ACCOUNT:
        made, used = now - timedelta(days=300), now - timedelta(minutes=randomness.randrange(60))
        row = connection(connectors[app], None, "ACTIVE", made, used, now + timedelta(days=30))
        if state.get("connections", row["id"]) is None:
            state.put("connections", row)
    pairs = _pairs(randomness, customers, workflows, _CONNECTIONS - len(state.all("connections")))
    settled = [pair for pair, customer in pairs.items() if parse_stamp(str(customer["createdAt"])) < now - _SETTLED]
    chosen = randomness.sample(settled, _BROKEN + _SWITCHED_OFF)
    statuses = dict.fromkeys(chosen[:_BROKEN:3], "FAILED")
    statuses |= dict.fromkeys(chosen[_BROKEN:], "INACTIVE")
    statuses = dict.fromkeys(chosen, "EXPIRED") | statuses
    return [
        state.put("connections", _row(now, randomness, connectors[app], customer, statuses.get((key, app), "ACTIVE")))
        for (key, app), customer in pairs.items()
    ]


def _pairs(
    randomness: random.Random, customers: list[Row], workflows: list[Row], count: int
) -> dict[tuple[str, str], Row]:
    """Who is connected to which app: by the ids of customers and the slugs of apps. A customer who waits has none."""
    at_work = [row for row in customers if row["status"] == "Active"]
    apps, weights = [*POPULAR], [*POPULAR.values()]
    pairs: dict[tuple[str, str], Row] = {}
    for customer, app in zip(at_work, randomness.choices(apps, weights, k=len(at_work)), strict=True):
        pairs[str(customer["id"]), app] = customer
    for workflow in workflows:
        first, *others = tenant_apps(workflow)
        with_first = [customer for (_, app), customer in pairs.items() if app == first]
        for customer in randomness.sample(with_first, min(len(with_first), _CUSTOMERS_WITH_BOTH)):
            pairs |= {(str(customer["id"]), app): customer for app in others}
    while len(pairs) < count:
        customer = randomness.choice(at_work)
        pairs[str(customer["id"]), randomness.choices(apps, weights)[0]] = customer
    return pairs


def _row(now: datetime, randomness: random.Random, connector: Row, customer: Row, status: str) -> Row:
    made = parse_stamp(str(customer["createdAt"]))
    made += max(now - made - _SETTLED, timedelta(0)) * randomness.random()
    if status == "ACTIVE":
        used = now - timedelta(minutes=randomness.randrange(540))
        return connection(connector, customer, status, made, used, now + timedelta(days=randomness.randrange(2, 60)))
    over = now - timedelta(days=randomness.randrange(1, 25), minutes=randomness.randrange(1440))
    return connection(connector, customer, status, made, over, over)
