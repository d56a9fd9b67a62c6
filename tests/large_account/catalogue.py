"""Connectors of a large account."""

import random
from datetime import datetime, timedelta
from typing import NamedTuple

from fastn_mcp.extensions.sandbox.connectors import OWN, connector
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, slug_of


class AppKind(NamedTuple):
    """What the apps of a category have in common. `objects` are what workflows carry from them."""

    actions: tuple[str, ...]
    events: tuple[str, ...]
    objects: tuple[str, ...]
    apps: str


CATEGORIES = {
    "CRM": AppKind(
        ("listContacts", "createContact", "updateDeal"), ("contact.created", "deal.updated"),
        ("contacts", "deals", "companies"),
        "Pipedrive, Zoho CRM, Freshsales, Copper, Close, Insightly, Nutshell, Capsule CRM, SugarCRM, Keap, "
        "Streak, Microsoft Dynamics 365 Sales, Oracle CX Sales, SAP Sales Cloud, Affinity, Attio, Folk, Apptivo, "
        "Agile CRM, Bitrix24, Less Annoying CRM, Nimble, Vtiger, HubSpot (private app), Salesforce Sandbox, "
        "Salesforce Pardot",
    ),
    "E-commerce": AppKind(
        ("listOrders", "updateInventory", "createProduct"), ("order.created", "order.paid", "product.updated"),
        ("orders", "products", "inventory", "refunds"),
        "WooCommerce, BigCommerce, Magento, Adobe Commerce, PrestaShop, Squarespace, Wix Stores, Ecwid, Etsy, "
        "eBay, Amazon Seller Central, Amazon Vendor Central, Walmart Marketplace, Shopware, OpenCart, "
        "Commercetools, Salesforce Commerce Cloud, VTEX, Swell, Faire, Zalando, Otto Market, Cdiscount, Mercado "
        "Libre, Shopee, Lazada, TikTok Shop (UK), Shopify Plus, Shopify (private app), Temu, Mirakl, "
        "ChannelAdvisor, Linnworks",
    ),
    "Accounting": AppKind(
        ("createInvoice", "listContacts", "recordPayment"), ("invoice.paid", "invoice.created"),
        ("invoices", "payments", "bills"),
        "FreshBooks, Wave, Sage Intacct, Sage Business Cloud, Sage 50, Zoho Books, MYOB, KashFlow, FreeAgent, "
        "Clear Books, Exact Online, Twinfield, Visma eAccounting, Fortnox, Lexware Office, DATEV, Bexio, Holded, "
        "Pennylane, Tally, Reckon, Kashoo, Bill.com, Expensify, Ramp, Brex, Spendesk, Pleo, Xero Payroll, "
        "QuickBooks Desktop",
    ),
    "ERP": AppKind(
        ("listItems", "createSale", "updateStock"), ("sale.created", "stock.changed"), ("sales", "items", "stock"),
        "NetSuite, SAP S/4HANA, SAP Business One, Odoo, Acumatica, Infor CloudSuite, Epicor Kinetic, Microsoft "
        "Dynamics 365 Business Central, Oracle Fusion, Workday Financials, IFS Cloud, Priority, Unleashed, Katana "
        "MRP, Fishbowl, Brightpearl, DEAR Systems, Cin7 Omni, SYSPRO, abas ERP, proALPHA, weclapp, Xentral",
    ),
    "Support": AppKind(
        ("createTicket", "listTickets", "addComment"), ("ticket.created", "ticket.solved"), ("tickets", "ratings"),
        "Freshdesk, Intercom, Help Scout, Gorgias, Front, Zoho Desk, Kayako, HappyFox, Kustomer, Gladly, "
        "LiveAgent, Jira Service Management, ServiceNow, Salesforce Service Cloud, Crisp, Drift, LiveChat, Tidio, "
        "Re:amaze, Dixa, TeamSupport, Richpanel, Zendesk Sell, Zendesk Chat",
    ),
    "Communication": AppKind(
        ("postMessage", "listMessages"), ("message.received",), ("messages", "calls"),
        "Microsoft Teams, Discord, Telegram, WhatsApp Business, Twilio, Vonage, MessageBird, Plivo, RingCentral, "
        "Zoom, Google Chat, Webex, Mattermost, Rocket.Chat, Gmail, Outlook Mail, SendGrid, Mailgun, Postmark, "
        "Amazon SES, Aircall, Dialpad, CallRail, JustCall, Sinch, Infobip, ClickSend, Telnyx, Viber Business, "
        "LINE",
    ),
    "Marketing": AppKind(
        ("addSubscriber", "listCampaigns", "trackEvent"), ("subscriber.added", "campaign.sent"),
        ("subscribers", "campaigns", "leads"),
        "Mailchimp, Klaviyo, ActiveCampaign, Brevo, Constant Contact, Campaign Monitor, ConvertKit, Drip, "
        "Omnisend, Marketo, Eloqua, Iterable, Braze, Customer.io, Customer.io (EU), GetResponse, AWeber, "
        "MailerLite, Moosend, Google Ads, Meta Ads, LinkedIn Ads, TikTok Ads, Microsoft Advertising, Pinterest "
        "Ads, Google Analytics, Mixpanel, Amplitude, Segment, Heap, PostHog, Typeform, SurveyMonkey, Jotform, "
        "Google Forms, Hootsuite, Buffer, Sprout Social, Unbounce, Instapage, Webflow, WordPress, Contentful, "
        "Yotpo, Attentive",
    ),
    "Payments": AppKind(
        ("listCharges", "createRefund", "listPayouts"), ("charge.succeeded", "payout.paid"),
        ("charges", "payouts", "disputes"),
        "Stripe, PayPal, Braintree, Adyen, Square, Mollie, Klarna, GoCardless, Checkout.com, Worldpay, "
        "Authorize.Net, Razorpay, Paddle, Chargebee, Recurly, Zuora, Wise, Payoneer, Afterpay, Affirm, Sezzle, "
        "Recharge, SumUp, Zettle",
    ),
    "HR": AppKind(
        ("listEmployees", "createEmployee", "listAbsences"), ("employee.hired", "absence.approved"),
        ("employees", "absences", "timesheets"),
        "BambooHR, Workday, Personio, HiBob, Gusto, Rippling, ADP Workforce Now, Paychex, Paylocity, UKG Pro, SAP "
        "SuccessFactors, Namely, Zenefits, Deel, Remote, Factorial, Greenhouse, Lever, Workable, Ashby, "
        "SmartRecruiters, Teamtailor, Recruitee, Breezy HR, JazzHR, Deputy, When I Work, Toggl Track, Harvest, "
        "Clockify",
    ),
    "Logistics": AppKind(
        ("createShipment", "trackShipment", "listRates"), ("shipment.delivered", "shipment.delayed"),
        ("shipments", "returns", "labels"),
        "ShipStation, Shippo, EasyPost, Sendcloud, ShipBob, ShipHero, Easyship, AfterShip, DHL Express, DHL "
        "Parcel, UPS, FedEx, USPS, Royal Mail, DPD, GLS, Hermes, Canada Post, Australia Post, PostNL, Flexport, "
        "Freightos, Loop Returns, Returnly, Narvar, Extensiv, Deposco, Logiwa, Mintsoft, Peoplevox",
    ),
    "Productivity": AppKind(
        ("createTask", "listTasks", "updateTask"), ("task.created", "task.completed"), ("tasks", "pages", "files"),
        "Asana, Trello, monday.com, ClickUp, Airtable, Jira, Linear, Basecamp, Wrike, Smartsheet, Todoist, Coda, "
        "Confluence, Evernote, OneNote, Google Docs, Google Drive, Google Calendar, Google Slides, Google Sheets "
        "(service account), Microsoft Excel, SharePoint, OneDrive, Dropbox, Box, Egnyte, DocuSign, PandaDoc, "
        "Adobe Acrobat Sign, HelloSign, Calendly, Miro, Figma, Canva, GitHub, GitLab, Bitbucket, PagerDuty, "
        "Opsgenie, Sentry, Datadog, Notion (legacy), Outlook Calendar, Zoho Projects, Teamwork",
    ),
    "Database": AppKind(
        ("insertRows", "queryRows", "upsertRows"), (), ("rows", "tables"),
        "PostgreSQL, MySQL, MariaDB, Microsoft SQL Server, Oracle Database, MongoDB, Amazon Redshift, Snowflake, "
        "BigQuery, Databricks, ClickHouse, DynamoDB, Firestore, Elasticsearch, Amazon S3, Azure Blob Storage, "
        "Google Cloud Storage, Cosmos DB, CockroachDB, SingleStore, Neon, PlanetScale",
    ),
    "Files": AppKind(
        ("listFiles", "uploadFile"), ("file.created",), ("files",),
        "SFTP, FTPS, AS2, AS2 (EU), Amazon Transfer Family, Cleo, SPS Commerce, TrueCommerce, Orderful, Stedi, "
        "WebDAV, Backblaze B2, Wasabi, Nextcloud, MinIO",
    ),
}  # fmt: skip

OWN_NAMES = (
    "Acme ERP",
    "Warehouse API",
    "Legacy Order API",
    "Partner Portal",
    "Pricing Service",
    "Loyalty API",
    "Field Service App",
    "Data Hub",
)
"""Connectors that the account made itself."""

POPULAR = {
    "hubspot": 14, "salesforce": 10, "shopify": 16, "xero": 8, "quickbooks": 8, "gmail": 4,
    "zendesk": 6, "cin7Core": 4, "stripe": 8, "mailchimp": 5, "klaviyo": 5, "netsuite": 5, "woocommerce": 6,
    "bigcommerce": 4, "pipedrive": 4, "intercom": 3, "freshdesk": 3, "gorgias": 2, "shipstation": 4, "sendcloud": 3,
    "bamboohr": 3, "personio": 2, "amazonSellerCentral": 5, "odoo": 3, "zohoCrm": 3, "sageIntacct": 2, "paypal": 3,
    "asana": 2, "jira": 3, "freshbooks": 2, "etsy": 2, "ebay": 2, "gusto": 2, "activecampaign": 2, "microsoftTeams": 3,
}  # fmt: skip
"""What customers connect, with how often beside the others."""

OF_THE_ACCOUNT = (
    "snowflake",
    "bigquery",
    "postgresql",
    "amazonS3",
    "supabase",
    "googleSheets",
    "notion",
    "airtable",
    "sftp",
    "slack",
)
"""What your own account is connected to: where workflows bring things for all customers."""


_AUTH = {"OAUTH_2": 6, "API_KEY": 3, "BEARER": 1}
_PROTOCOLS = {"Database": "Database", "Files": "FTP"}


def _camel_of(name: str) -> str:
    """`Google Sheets` is `googleSheets`: the slug of a connector."""
    first, *others = slug_of(name).split("-")
    return first + "".join(word.capitalize() for word in others)


def add_connectors(state: SandboxState, now: datetime, randomness: random.Random) -> None:
    for category, kind in CATEGORIES.items():
        for name in kind.apps.split(", "):
            state.put("connectors", _connector(state, now, randomness, name, category))
    for name in OWN_NAMES:
        state.put("connectors", _connector(state, now, randomness, name, "ERP") | OWN)


def _connector(state: SandboxState, now: datetime, randomness: random.Random, name: str, category: str) -> Row:
    kind = CATEGORIES[category]
    (auth,) = randomness.choices([*_AUTH], [*_AUTH.values()])
    slug = _camel_of(name)
    when = now - timedelta(days=randomness.randrange(20, 700))
    row = connector(state, slug, name, f"{slug_of(name)}.example", auth, kind.actions, kind.events, when)
    return row | {"category": category, "protocol": _PROTOCOLS.get(category, "REST")}
