// Searches a built site with its own scripts: `node search.mjs FOLDER`. Each line of stdin is a query. Writes a line of
// JSON for each: its results, the best first, as `page.html` or `page.html#section`.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createContext, runInContext } from "node:vm";

const site = process.argv[2];
const element = { lastChild: null, appendChild: () => element };
const document = { getElementById: () => element, createElement: () => element };
const scope = createContext({
  window: { location: {} }, URLSearchParams, document, SPHINX_HIGHLIGHT_ENABLED: false, _ready: () => {}, _: (text) => text,
});
const scripts = ["_static/language_data.js", "_static/searchtools.js", "searchindex.js"];
runInContext("const Stemmer = function () { return new window.Stemmer(); };", scope);
for (const script of scripts) runInContext(readFileSync(join(site, script), "utf8"), scope);

for (const query of readFileSync(0, "utf8").split("\n").filter((line) => line)) {
  scope.query = query;
  scope.window.location.search = `?${new URLSearchParams({ q: query })}`;
  const results = runInContext("Search._performSearch(...Search._parseQuery(query))", scope);
  console.log(JSON.stringify(results.reverse().map(([page, , anchor]) => `${page}.html${anchor}`)));
}
