"""Queries of find, with the best hits that a person would expect on the small and on the large account."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """Hits that a query may mean, each as `kind name`; none if nothing is to be found."""

    names: Sequence[str]
    comes_first: bool = True
    """Whether one of them comes first."""
    among_three: int | None = None
    """How many of them are among the first three; None if all are (or three of more)."""

    def is_met(self, found: Sequence[str]) -> bool:
        """Return whether the first three hits of an answer are at least as good."""
        if not self.names:
            return not found
        least = min(3, len(self.names)) if self.among_three is None else self.among_three
        comes_first = found[:1] != [] and found[0] in self.names
        return (comes_first or not self.comes_first) and sum(name in found for name in self.names) >= least


@dataclass(frozen=True, slots=True)
class Search:
    """A query, with what is expected of it on an account; None if it is not asked there."""

    query: str
    small: Expected | None = None
    large: Expected | None = None


def hits(*names: str, comes_first: bool = True, among_three: int | None = None) -> Expected:
    return Expected(names, comes_first, among_three)


def same(query: str, *names: str) -> Search:
    """Return a query of which the same is expected on both accounts."""
    return Search(query, hits(*names), hits(*names))


NOTHING = hits()

COFFEES = [
    f"customer {name} Coffee" for name in ("Cedar", "Copper", "Foxglove", "Hazel", "Lakeside", "Lantern", "Solstice")
]
"""Customers of the large account, all as near to "coffee"."""

WHOLE_NAMES = (
    same("Acme Corp", "customer Acme Corp"),
    Search("acmecorp", small=hits("customer Acme Corp"), large=hits("customer Acmecorp")),
    same("Globex Exports", "customer Globex Exports"),
    Search("Globex Exports BV", small=hits("customer Globex Exports"), large=hits("customer Globex Exports BV")),
    Search(
        "acme corporation",
        small=hits("customer Acme Corp", "customer John-Acme"),
        large=hits("customer ACME Corporation"),
    ),
    same("TikTok Shop", "connector TikTok Shop"),
    same("HUBSPOT", "connector HubSpot"),
    same("process-new-orders", "workflow process-new-orders"),
    same("stripe secret key", "secret STRIPE_SECRET_KEY"),
    same("Support read-only", "role Support read-only"),
    same("the BI export key", "api_key BI export"),
    same("Shop events", "trigger Shop events"),
    Search(
        "Asana tasks to Google Sheets",
        small=hits("connector Google Sheets"),
        large=hits("workflow Asana tasks to Google Sheets"),
    ),
    Search("HubSpot (private app)", small=hits("connector HubSpot"), large=hits("connector HubSpot (private app)")),
    same("owner", "role Owner"),
    Search("john acme", small=hits("customer John-Acme")),
    Search("mcp key", small=hits("api_key MCP")),
)

TYPING_MISTAKES = (
    Search("akme corp", small=hits("customer Acme Corp"), large=hits("customer Acme Corp", "customer Acmecorp")),
    Search("AKME", small=hits("customer Acme Corp", "customer John-Acme")),
    same("Katanna", "customer Katana"),
    Search(
        "glbex exprots",
        small=hits("customer Globex Exports"),
        large=hits("customer Globex Exports", "customer Globex Exports BV"),
    ),
    same("hubspt", "connector HubSpot"),
    same("zendsk", "connector Zendesk"),
    same("gogle sheets", "connector Google Sheets"),
    same("quikbooks", "connector QuickBooks"),
    Search("netsute", small=NOTHING, large=hits("connector NetSuite")),
    same("sync tiktok oders to cin7", "workflow Sync TikTok Orders to Cin7 Core"),
    same("tiktok setlements", "workflow sync_tiktok_settlements_cin7"),
    same("inventroy update", "workflow update-inventory"),
    same("procesing new orders", "workflow process-new-orders"),
    same("slak mesages to supabase", "workflow Slack Messages to Supabase Hourly Sync"),
    same("nightly contcat sync", "trigger Nightly contact sync"),
    same("trakcing updates", "trigger Tracking updates (public)"),
    same("mei tanka", "user Mei Tanaka"),
    same("priya niar", "user Priya Nair"),
    same("stripe secert key", "secret STRIPE_SECRET_KEY"),
    Search("acmee hubsopt snyc", small=NOTHING, large=hits("workflow Acme HubSpot sync")),
    Search("harvset suply", small=NOTHING, large=hits("customer Harvest Supply Co")),
    Search("north wind trader", small=NOTHING, large=hits("customer North Wind Traders")),
    Search("atlas logistics", small=NOTHING, large=hits("customer Atlass Logistics", "customer Atlas Logistics GmbH")),
)

PARTS = (
    Search(
        "acme",
        small=hits("customer Acme Corp"),
        large=hits("customer Acme Co", "customer Acme Corp", "customer Acme Foods", "customer Acme Logistics"),
    ),
    Search("glob", small=hits("customer Globex Exports"), large=hits("customer Globex")),
    same("kat", "customer Katana"),
    same("sheets", "connector Google Sheets"),
    Search(
        "tik tok",
        small=hits("connector TikTok Shop", "trigger Daily TikTok sync"),
        large=hits("connector TikTok Ads", "connector TikTok Shop"),
    ),
    same("hub", "connector HubSpot"),
    same("supa", "connector Supabase"),
    same("quick", "connector QuickBooks"),
    Search("coffee", small=NOTHING, large=hits(*COFFEES)),
    same("settlements", "workflow sync_tiktok_settlements_cin7"),
    same("backfill", "workflow orders-backfill"),
    same("inventory", "workflow update-inventory"),
    Search(
        "contacts",
        small=hits(
            "workflow Sync HubSpot contacts to Cin7 customers",
            "trigger Nightly contact sync",
            "trigger New HubSpot contact",
        ),
        large=hits("trigger Nightly contact sync"),
    ),
    same("gamma deck", "workflow hubspot-discovery-deal-to-gamma-deck"),
    same("tracking", "workflow tracking-to-shopify-and-buyer", "trigger Tracking updates (public)"),
    Search("cin7", small=hits("connector Cin7 Core"), large=hits("connector Cin7 Core", "connector Cin7 Omni")),
    Search(
        "orders",
        small=hits("workflow orders-backfill", "workflow process-new-orders"),
        large=hits("workflow orders-backfill"),
    ),
    same("new orders", "workflow process-new-orders"),
    Search(
        "shopify orders",
        small=hits("trigger Paid Shopify orders"),
        large=hits("trigger Paid Shopify orders", "workflow Sync Shopify orders to Notion"),
    ),
    same("tiktok orders", "workflow Sync TikTok Orders to Cin7 Core"),
    same("hourly", "trigger Hourly Slack sync"),
    same("token", "secret PARTNER_TOKEN", "secret SHOPIFY_API_TOKEN"),
    Search("olsen", small=NOTHING, large=hits("user Zoe Olsen", "user Felix Olsen")),
    Search(
        "dynamics 365",
        small=NOTHING,
        large=hits("connector Microsoft Dynamics 365 Sales", "connector Microsoft Dynamics 365 Business Central"),
    ),
    Search(
        "etsy refunds",
        small=NOTHING,
        large=hits("workflow Copy new Etsy refunds to Intercom", "workflow Sync Etsy refunds to Google Sheets"),
    ),
    Search("Amber Travel", small=NOTHING, large=hits("customer Amber Travel BV")),
)

SPELLINGS = (
    same("acme-corp", "customer Acme Corp"),
    same("katana-customer", "customer Katana"),
    same("globex_exports", "customer Globex Exports"),
    same("googleSheets", "connector Google Sheets"),
    same("hub spot", "connector HubSpot"),
    same("sales force", "connector Salesforce"),
    same("quick books", "connector QuickBooks"),
    same("tik tok shop", "connector TikTok Shop"),
    same("cin7Core", "connector Cin7 Core"),
    same("tiktokshop", "connector TikTok Shop"),
    same("slack-messages-to-supabase-hourly-sync", "workflow Slack Messages to Supabase Hourly Sync"),
    same("syncTiktokSettlementsCin7", "workflow sync_tiktok_settlements_cin7"),
    same("procesNewOrders", "workflow process-new-orders"),
    Search("harvest-supply-co", small=NOTHING, large=hits("customer Harvest Supply Co")),
)

EMAIL_ADDRESSES = (
    same("ops@acme.example", "customer Acme Corp"),
    same("john@acme.ai", "customer John-Acme"),
    same("dana@fastn.example", "user Dana Reyes"),
    same("dana@fastn", "user Dana Reyes"),
    same("reyes@fastn.example", "user Dana Reyes"),
    same("sam@fastn.example", "user sam@fastn.example"),
    same("admin@katana.example", "customer Katana"),
    same("who is priya@fastn.example?", "user Priya Nair"),
    same("apps@globex.example, their orders", "customer Globex Exports"),
    Search("rosa@harvestsupplyco.example", small=NOTHING, large=hits("customer Harvest Supply Co")),
    same("nobody@nowhere.example"),
)

IDS = (
    same("wf_0d93ee5b1f62", "workflow process-new-orders"),
    same("wf_0d93", "workflow process-new-orders"),
    same("wf_e5047fb2a8c3 please", "workflow sync_tiktok_settlements_cin7"),
    same("5c4bc270-6e5f-4523-afd7-6538d17c6c3a", "customer Globex Exports"),
    same("5c4bc270", "customer Globex Exports"),
    same("0c6eeceb-caab-4f9a-a04e-a5265045745f", "connector Slack"),
    same("bc82773f-ef9f-4c85-aa8e-0278c87e711c", "trigger Daily TikTok sync"),
    same("b4c89194-db69-4955-aaa8-188a76808311", "user Lee Okafor"),
    same("sec_780922a119b5", "secret STRIPE_SECRET_KEY"),
    same("sec_7809", "secret STRIPE_SECRET_KEY"),
    same("crm-1001", "customer Acme Corp"),
    same("exec_000000000000"),
    same("wf_000000000000"),
    same("key 1", "api_key Workflow"),
    same("apikey:3", "api_key TEST"),
    same("api key #2", "api_key MCP"),
    Search("API key #14", large=hits("api_key Billing export")),
    Search("api key ending in ewer", large=hits("api_key TEST")),
    same("what did key 1 do last week?", "api_key Workflow"),
    same("order2"),
    same("cin8"),
)

SENTENCES = (
    same("why did the hubspot contact sync fail last night?", "workflow Sync HubSpot contacts to Cin7 customers"),
    Search(
        "the acme hubspot sync",
        small=hits("workflow Sync HubSpot contacts to Cin7 customers"),
        large=hits("workflow Acme HubSpot sync"),
    ),
    Search("why did acme's hubspot sync fail last night?", large=hits("workflow Acme HubSpot sync")),
    Search("the acme hubspot sync that times out", large=hits("workflow Acme HubSpot sync")),
    same("the slack to supabase sync", "workflow Slack Messages to Supabase Hourly Sync"),
    same("what broke the slack to supabase sync this morning", "workflow Slack Messages to Supabase Hourly Sync"),
    same("pause the hourly slack sync", "trigger Hourly Slack sync"),
    Search("pause the acme hubspot sync", large=hits("trigger Acme HubSpot sync, at night")),
    same("turn off the tracking webhook", "trigger Tracking updates (public)"),
    same("Make the TikTok sync of Katana run at 6 in the morning", "trigger Daily TikTok sync"),
    same("Katana's tiktok orders are slow", "workflow Sync TikTok Orders to Cin7 Core"),
    same("which workflows run for Katana?", "customer Katana", "workflow Sync TikTok Orders to Cin7 Core"),
    same("orders of Globex Exports do not arrive", "workflow orders-backfill", "workflow process-new-orders"),
    Search("globex's account", small=hits("customer Globex Exports"), large=hits("customer Globex")),
    same("disconnect xero of acme corp", "connection Xero of Acme Corp"),
    Search("disconnect hubspot of acme corp", large=hits("connection HubSpot of Acme Corp")),
    Search("the shopify connection of globex", small=hits("connection Shopify of Globex Exports")),
    same("widget hubspot", "connection HubSpot of Widget Inc"),
    same("acme xero", "connection Xero of Acme Corp"),
    Search("akme's xero connection", small=hits("connection Xero of Acme Corp")),
    same("katana tiktok connection expired", "connection TikTok Shop of Katana"),
    same("the support role", "role Support read-only"),
    same("the partner token", "secret PARTNER_TOKEN"),
    same("invite lee to the account", "user Lee Okafor"),
    same("delete the orders backfill workflow", "workflow orders-backfill"),
    same("the draft workflow for tiktok settlements", "workflow sync_tiktok_settlements_cin7"),
    same("the connector for google sheets", "connector Google Sheets"),
    same("daily tiktok schedule", "trigger Daily TikTok sync"),
    same("the nightly contact schedule", "trigger Nightly contact sync"),
    same("globex paid orders", "trigger Paid Shopify orders"),
    Search("the umbra chemicals customer", small=NOTHING, large=hits("customer Umbra Chemicals")),
    Search(
        "the hubspot companies backfill",
        small=hits("workflow orders-backfill"),
        large=hits("workflow HubSpot companies backfill to Stripe"),
    ),
    same("hubspot to gamma", "workflow hubspot-discovery-deal-to-gamma-deck"),
    Search("stripe webhook secret", small=hits("secret STRIPE_SECRET_KEY"), large=hits("secret STRIPE_WEBHOOK_SECRET")),
    Search("klaviyo api key", large=hits("secret KLAVIYO_API_KEY")),
)

SEVERAL_THINGS = (
    same("Rotate STRIPE_SECRET_KEY for Globex Exports only.", "secret STRIPE_SECRET_KEY", "customer Globex Exports"),
    same("Compare Acme Corp and Globex Exports", "customer Acme Corp", "customer Globex Exports"),
    Search(
        "slack and xero",
        small=hits("connector Slack", "connector Xero"),
        large=hits("workflow Sync Xero payments to Slack", "workflow Xero invoices backfill to Slack"),
    ),
    same("dana and priya", "user Dana Reyes", "user Priya Nair"),
    same("Katana and the daily tiktok sync", "trigger Daily TikTok sync"),
    Search(
        "update-inventory and process-new-orders",
        small=hits("workflow update-inventory", "workflow process-new-orders", comes_first=False),
        large=hits("workflow update-inventory", "workflow process-new-orders", comes_first=False),
    ),
    same("SHOPIFY_API_TOKEN and PARTNER_TOKEN", "secret SHOPIFY_API_TOKEN", "secret PARTNER_TOKEN"),
    same("give Lee Okafor the Operator role", "user Lee Okafor", "role Operator"),
    same("Offboard Widget Inc and remove its hubspot connection", "connection HubSpot of Widget Inc"),
    same(
        "Run the slack to supabase sync for Acme Corp first, and report when it has finished.",
        "workflow Slack Messages to Supabase Hourly Sync",
    ),
    same(
        "Pause the hourly slack sync while I fix it; afterwards make it every 15 minutes.", "trigger Hourly Slack sync"
    ),
    same(
        "Who changed the slack to supabase sync? What did key 1 do? Did anyone touch production last night?",
        "workflow Slack Messages to Supabase Hourly Sync",
        "api_key Workflow",
    ),
    same("Which workflows use the Slack connector, before I delete it?", "connector Slack"),
    Search(
        "pause all triggers for Acme. Then delete Globex",
        small=hits("customer Acme Corp", "customer Globex Exports", among_three=2),
        large=hits("trigger Acme HubSpot sync, at night", "customer Globex", among_three=2),
    ),
)

OTHER_LANGUAGES = (
    Search(
        "sync hubspot acme",
        small=hits("workflow Sync HubSpot contacts to Cin7 customers"),
        large=hits("workflow Acme HubSpot sync"),
    ),
    same("Exports Globex", "customer Globex Exports"),
    same("Corp Acme", "customer Acme Corp"),
    same("Reyes Dana", "user Dana Reyes"),
    same("cin7 tiktok settlements sync", "workflow sync_tiktok_settlements_cin7"),
    same("die HubSpot Kontakte Synchronisierung von Acme", "connector HubSpot"),
    Search(
        "la sincronización de HubSpot de Acme Corp",
        small=hits("customer Acme Corp", "connector HubSpot", comes_first=False),
        large=hits("workflow Acme HubSpot sync", "connection HubSpot of Acme Corp"),
    ),
    same("le webhook de suivi tracking"),
    same("Katana の TikTok sync", "trigger Daily TikTok sync", "workflow Sync TikTok Orders to Cin7 Core"),
    same("Slack 接続 Acme Corp", "connection Slack of Acme Corp"),
    Search("Kunde Globex", small=hits("customer Globex Exports"), large=hits("customer Globex")),
    Search(
        "cliente Widget Inc", small=hits("customer Widget Inc"), large=hits("customer Widget Inc", comes_first=False)
    ),
    same("connecteur google sheets", "connector Google Sheets"),
    same("Bestellungen orders backfill", "workflow orders-backfill"),
    same("el flujo process new orders", "workflow process-new-orders"),
    same("trigger täglicher TikTok sync", "trigger Daily TikTok sync"),
    same("スラック"),
)

NOTHING_THERE = (
    same("Nordlicht Bikes"),
    same("onboard Nordlicht Bikes"),
    same("zzzz qqqq"),
    same("the"),
    same("exec"),
    same("日本"),
    Search("mongodb atlas cluster backup", small=NOTHING, large=hits("connector MongoDB")),
    Search("why did it fail", small=NOTHING),
    same("failed workflows"),
    same("show me all workflows"),
    same("which connections expire soon?"),
    Search("Umbrella Corporation", small=NOTHING),
)

SEARCHES = (
    *WHOLE_NAMES,
    *TYPING_MISTAKES,
    *PARTS,
    *SPELLINGS,
    *EMAIL_ADDRESSES,
    *IDS,
    *SENTENCES,
    *SEVERAL_THINGS,
    *OTHER_LANGUAGES,
    *NOTHING_THERE,
)
