"""A host of MCP Apps in a real browser: a page that shows an app in a sandboxed frame and speaks its protocol."""

from collections.abc import Awaitable, Callable
from typing import Any

from mcp import Client
from mcp.client.extension import advertise
from mcp.types import TextResourceContents
from playwright.async_api import BrowserContext, FrameLocator, Page, Route

APPS = advertise("io.modelcontextprotocol/ui", {"mimeTypes": ["text/html;profile=mcp-app"]})
"""What a client declares whose host shows apps."""

CAPABILITIES: dict[str, Any] = {"openLinks": {}, "serverTools": {}, "message": {"text": {}}}

Json = dict[str, Any]
Forward = Callable[[str, Json], Awaitable[Any]]
"""Sends a request of the app to the server: method and parameters."""

# The policy is the one that hosts apply to an app that declares none (MCP Apps, "Restrictive Default").
_HOST = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A chat</title><style>
:root { color-scheme: light dark } body { margin: 0; padding: 8px; font: 16px sans-serif }
h1 { margin: 0; font-size: 13px; font-weight: normal; opacity: 0.8 }
p { margin: 8px 0 16px auto; padding: 8px 14px; border-radius: 14px; background: #8883; width: fit-content }
iframe { width: 100%; height: 0; border: 0; display: block }
</style><main><h1>A chat</h1><p id="said">Delete Globex Exports.</p><div id="app"></div></main>
<script>
const POLICY = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
  + "img-src 'self' data:; media-src 'self' data:; object-src 'none'; connect-src 'none'";
window.heard = []; window.opened = []; window.sent = [];
let frame = null;
const send = (message) => frame.contentWindow.postMessage({ jsonrpc: "2.0", ...message }, "*");
window.notify = (method, params) => send({ method, params });
window.teardown = () => send({ id: "end", method: "ui/resource-teardown", params: { reason: "closed" } });
window.show = (html, { capabilities, context, policy }) => new Promise((ready) => {
  frame = document.createElement("iframe");
  frame.title = "Approval request";
  frame.setAttribute("sandbox", "allow-scripts");
  const meta = policy ? `<meta http-equiv="Content-Security-Policy" content="${POLICY}">` : "";
  frame.srcdoc = html.replace("<head>", `<head>${meta}`);
  window.onmessage = async ({ source, data }) => {
    if (source !== frame.contentWindow) return;
    window.heard.push(data);
    const { id, method, params } = data;
    if (method === "ui/notifications/initialized") ready();
    else if (method === "ui/notifications/size-changed") frame.style.height = `${params.height}px`;
    else if (method === "ui/initialize") {
      send({ id, result: { protocolVersion: "2026-01-26", hostInfo: { name: "tests", version: "1" },
        hostCapabilities: capabilities, hostContext: context } });
    } else if (method === "ui/open-link") { window.opened.push(params.url); send({ id, result: {} }); }
    else if (method === "ui/message") { window.sent.push(params); send({ id, result: {} }); }
    else if (id !== undefined && method && !method.startsWith("ui/")) {
      const { error, result } = await window.forward(method, params ?? {});
      send(error ? { id, error: { code: -32000, message: error } } : { id, result });
    } else if (id !== undefined && method) send({ id, result: {} });
  };
  document.getElementById("app").replaceChildren(frame);
});
</script></html>"""


class AppHost:
    """A chat whose app is shown for one call. `heard` are the app's messages."""

    def __init__(self, tab: Page) -> None:
        self.tab = tab

    @property
    def app(self) -> FrameLocator:
        return self.tab.frame_locator("#app iframe")

    async def heard(self) -> list[Json]:
        return list(await self.tab.evaluate("window.heard"))

    async def opened(self) -> list[str]:
        return list(await self.tab.evaluate("window.opened"))

    async def sent(self) -> list[Json]:
        return list(await self.tab.evaluate("window.sent"))

    async def show(
        self, html: str, *, capabilities: Json = CAPABILITIES, context: Json | None = None, policy: bool = True
    ) -> None:
        """Show an app, and return once it is initialized."""
        said = {"capabilities": capabilities, "context": context or {}, "policy": policy}
        await self.tab.evaluate("([html, said]) => window.show(html, said)", [html, said])

    async def notify(self, method: str, params: Json) -> None:
        await self.tab.evaluate("([method, params]) => window.notify(method, params)", [method, params])

    async def returned(self, result: Any) -> None:
        """Give the app the result of the call."""
        await self.notify("ui/notifications/tool-result", result.model_dump(by_alias=True, mode="json"))


async def app_host(context: BrowserContext, forward: Forward) -> AppHost:
    """Open the chat. What the app asks of the server is sent by `forward`."""
    tab = await context.new_page()

    async def page(route: Route) -> None:
        await route.fulfill(body=_HOST, content_type="text/html")

    async def forwarded(method: str, params: Json) -> Json:
        try:
            return {"result": await forward(method, params)}
        except Exception as error:
            return {"error": str(error) or type(error).__name__}

    await tab.route("http://chat.example/", page)
    await tab.expose_function("forward", forwarded)  # pyright: ignore[reportUnknownMemberType]
    await tab.clock.install()
    await tab.goto("http://chat.example/")
    return AppHost(tab)


def tools_of(client: Client) -> Forward:
    """Let an app call tools, as hosts do."""

    async def forward(method: str, params: Json) -> Any:
        assert method == "tools/call"
        result = await client.call_tool(params["name"], params.get("arguments"))
        return result.model_dump(by_alias=True, mode="json")

    return forward


async def app_of(client: Client, tool: str) -> str:
    """Return the app that the list names for a tool, as a host reads it."""
    (listed,) = (each for each in (await client.list_tools()).tools if each.name == tool)
    assert listed.meta is not None
    (content,) = (await client.read_resource(listed.meta["ui"]["resourceUri"])).contents
    assert isinstance(content, TextResourceContents)
    assert content.mime_type == "text/html;profile=mcp-app"
    return content.text
