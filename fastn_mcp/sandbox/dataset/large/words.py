"""Names of companies and of people, composed from words. Pure: chance is passed in."""

import random

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
