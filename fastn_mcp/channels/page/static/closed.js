// Leads from the page's address, which agents and results name, to the session of a browser that was let in before.
// Only this origin reads where that is, and it opens nothing without the session's cookie.
"use strict";

try {
  const root = localStorage.getItem("root");
  if (["/", "/enter"].includes(location.pathname) && /^\/[\w-]+\/$/.test(root)) location.replace(root);
} catch { /* storage is not allowed */ }
