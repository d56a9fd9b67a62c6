// Keeps an open approval page up to date: adds new requests, removes decided ones, and keeps what a person types.
// The page works without it. Nothing here decides; only a form that a person submits does.
"use strict";

(() => {
  const root = document.body.dataset.root;
  const announce = document.getElementById("announce");
  const live = document.getElementById("live");
  const open = document.querySelector(".queue [aria-current]");
  const SETTLE = 700; // milliseconds in which a page that has just moved under the pointer takes no decision
  const TICK = 10_000;
  const RETRY = 3_000;
  try { localStorage.setItem("root", root); } catch { /* not allowed: the page's address then leads nowhere */ }
  let main = document.getElementById("main");
  let skew = Date.now() - Number(main.dataset.clock) * 1000;
  let settled = 0;
  let events = null;
  let refreshing = false;
  let again = false;
  let retry = 0;
  let out = false; // no longer let in
  let lostFocus = false; // what had the focus is gone

  const say = (text) => {
    announce.textContent = "";
    requestAnimationFrame(() => { announce.textContent = text; });
  };

  const state = (name, words) => {
    live.dataset.state = name;
    document.getElementById("live-words").textContent = words;
  };

  // Times

  const rough = (seconds) => {
    for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
      const count = Math.floor(seconds / size);
      if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"}`;
    }
    return null;
  };

  const tell = () => {
    const now = Date.now() - skew;
    let over = false;
    for (const time of main.querySelectorAll("time")) {
      const seconds = (Date.parse(time.dateTime) - now) / 1000;
      let words;
      if ("left" in time.dataset) {
        words = rough(seconds) ?? "less than a minute";
        over ||= seconds <= 0;
      } else {
        words = rough(-seconds);
        words = words === null ? "just now" : `${words} ago`;
      }
      if (time.textContent !== words) time.textContent = words;
      if (!time.title) time.title = new Date(time.dateTime).toLocaleString();
    }
    for (const each of main.querySelectorAll("[data-until]")) each.hidden = now > Number(each.dataset.until) * 1000;
    return over;
  };

  // Updates

  const merge = (list, fresh) => {
    const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
    const added = [];
    let removed = 0;
    lostFocus = false;
    const kept = [...fresh.children].map((child) => {
      const known = old.get(child.dataset.key);
      old.delete(child.dataset.key);
      if (known) return known; // as it is: with its focus, and with what was typed
      added.push(child);
      return child;
    });
    for (const gone of old.values()) {
      lostFocus ||= gone.contains(document.activeElement);
      gone.remove();
      removed += 1;
    }
    kept.forEach((child, place) => {
      if (list.children[place] !== child) list.insertBefore(child, list.children[place] ?? null);
    });
    return { added, removed };
  };

  // The first card has the only heading of level 1, to which the page's first link leads.
  const promote = () => {
    for (const [place, card] of [...main.querySelectorAll(".card")].entries()) {
      const old = card.querySelector(".first");
      const id = place === 0 ? "request" : `request-${card.dataset.key}`;
      card.setAttribute("aria-labelledby", id);
      if (old.tagName === (place === 0 ? "H1" : "H2")) continue;
      const heading = document.createElement(place === 0 ? "h1" : "h2");
      for (const { name, value } of old.attributes) heading.setAttribute(name, value);
      heading.id = id;
      heading.append(...old.childNodes);
      old.replaceWith(heading);
    }
  };

  // Groups came or went. What was selected is kept where only their numbers differ.
  const isRegrouped = (old, fresh) => {
    const names = (queue) => [...queue.querySelectorAll("[data-list]")].map((list) => list.dataset.list).join("\n");
    const heads = (queue) => [...queue.querySelectorAll("h2")].map((head) => head.textContent).join("\n");
    return names(old) !== names(fresh) || (heads(old) !== heads(fresh) && !old.querySelector(":checked"));
  };

  const take = (fresh) => {
    const count = Number(fresh.dataset.count);
    const waits = count === 0 ? "No requests waiting" : count === 1 ? "1 request waiting" : `${count} requests waiting`;
    document.getElementById("waiting").textContent = waits;
    document.getElementById("count").textContent = count || "";
    const said = [];
    const was = new Set(known());
    // A list of requests appears with the third and goes with the last but two.
    const queue = fresh.querySelector(".queue");
    main.classList.toggle("many", queue !== null);
    if (queue === null) main.querySelector(".queue")?.remove();
    else if (!main.querySelector(".queue")) main.prepend(queue.cloneNode(true));
    else if (isRegrouped(main.querySelector(".queue"), queue)) main.querySelector(".queue").replaceWith(queue.cloneNode(true));
    for (const section of fresh.querySelectorAll(".rest section")) {
      if (!main.querySelector(`[aria-labelledby="${section.getAttribute("aria-labelledby")}"]`)) {
        main.querySelector(".rest").prepend(section.cloneNode(true));
      }
    }
    for (const list of main.querySelectorAll("[data-list]")) {
      const other = fresh.querySelector(`[data-list="${list.dataset.list}"]`);
      if (other === null) { list.closest("section").remove(); continue; }
      const { added, removed } = merge(list, other);
      if (list.dataset.list !== "questions" || added.length + removed === 0) continue;
      settle();
      promote();
      if (removed && lostFocus) document.getElementById("request").focus();
    }
    mark();
    const open = known();
    const fewer = [...was].filter((key) => !open.includes(key)).length;
    for (const key of open) if (!was.has(key)) said.push(`New request: ${plain(key)}.`);
    if (fewer) said.push(fewer === 1 ? "One request is over." : `${fewer} requests are over.`);
    document.title = document.title.replace(/^(\(\d+\) )?/, count ? `(${count}) ` : ""); // never with a name in it
    if (said.length) say(`${said.join(" ")} ${waits}.`);
    main.dataset.revision = fresh.dataset.revision;
    skew = Date.now() - Number(fresh.dataset.clock) * 1000;
  };

  // Keys of the requests that wait, in the list or, without one, as cards.
  const known = () => [...main.querySelectorAll(main.querySelector(".queue") ? ".queue li" : ".card")]
    .map((each) => each.dataset.key);

  const plain = (key) => (main.querySelector(`.queue li[data-key="${key}"] .what`)?.textContent
    ?? main.querySelector(`.card[data-key="${key}"]`).dataset.plain);

  const mark = () => {
    const key = main.querySelector(".card")?.dataset.key;
    for (const item of main.querySelectorAll(".queue li")) {
      const link = item.querySelector("a");
      if (item.dataset.key === key) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };

  // The request that is open: the one in which somebody works, or else the one of the address.
  const current = () => {
    const cards = [...main.querySelectorAll(".card")];
    const used = cards.find((card) => card.contains(document.activeElement))
      ?? cards.find((card) => [...card.querySelectorAll("input:not([type=hidden]), textarea")].some((field) => field.value));
    return (used ?? cards[0])?.dataset.key ?? "";
  };

  const settle = () => {
    main.dataset.settling = "";
    clearTimeout(settled);
    settled = setTimeout(() => { delete main.dataset.settling; }, SETTLE);
  };

  const refresh = async () => {
    if (refreshing) { again = true; return; }
    refreshing = true;
    try {
      const answer = await fetch(`${root}now?request=${encodeURIComponent(current())}`, { cache: "no-store", credentials: "same-origin", redirect: "error" });
      if (answer.status === 403) { lost("You no longer have access"); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!answer.ok) {
        if (!events) state("lost", page.querySelector("[data-why]")?.dataset.why ?? "Not connected");
        return;
      }
      take(page.getElementById("main"));
      tell();
    } catch {
      if (!events) state("lost", "Not connected"); // the stream says when the server is back
    } finally {
      refreshing = false;
      if (again) { again = false; refresh(); }
    }
  };

  const lost = (words) => {
    out = true;
    events?.close();
    events = null;
    state("lost", words);
    say(words);
  };

  const watch = () => {
    if (document.hidden) { // out of view: the server then opens a new tab for what is new
      events?.close();
      events = null;
      return;
    }
    if (events) return;
    events = new EventSource(`${root}events`);
    events.addEventListener("open", () => state("on", "Up to date"));
    events.addEventListener("changed", (event) => {
      if (event.data !== main.dataset.revision) refresh();
    });
    events.addEventListener("error", () => {
      if (events?.readyState !== EventSource.CLOSED) {
        state("lost", "Not connected");
        return;
      }
      // The stream was refused, which browsers do not retry. A response of the page says why.
      events = null;
      refresh();
      clearTimeout(retry);
      retry = setTimeout(() => { if (!out) watch(); }, RETRY);
    });
  };

  // Forms

  const hint = (input, is, text) => {
    const line = document.getElementById(input.id.replace("name-", "hint-"));
    line.dataset.is = is;
    if (line.textContent !== text) line.textContent = text;
    if (is === "no") input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };

  const check = (input) => {
    const expected = input.dataset.expected;
    // The server also accepts an escaped name in its original form.
    const isEscaped = expected.includes("\\u{");
    if (input.value === expected) hint(input, "yes", "It matches.");
    else if (isEscaped || expected.startsWith(input.value)) hint(input, "", "Upper and lower case and spaces matter.");
    else hint(input, "no", "The name does not match. Upper and lower case and spaces matter.");
    return input.value === expected || isEscaped;
  };

  document.addEventListener("input", (event) => {
    if (event.target.dataset.expected !== undefined) check(event.target);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    const input = form.querySelector("[data-expected]");
    if ("settling" in main.dataset && main.contains(form)) { // signing out decides nothing
      event.preventDefault();
      say("The page has just changed. Read it, then decide.");
    } else if ("sent" in form.dataset) {
      event.preventDefault();
    } else if (input && !check(input) && input.checkValidity()) {
      event.preventDefault();
      hint(input, "no", "Not approved. The name does not match.");
      input.focus();
    } else {
      form.dataset.sent = "";
    }
  });

  // Restored from the back/forward cache: submitted forms may be open again and the page outdated.
  window.addEventListener("pageshow", (event) => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
    if (event.persisted) refresh();
  });

  document.addEventListener("visibilitychange", () => {
    watch();
    if (!document.hidden) refresh();
  });

  // Arrow keys in the list; Enter opens. No key approves by itself: a key meant for another window must not.
  document.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const links = [...main.querySelectorAll(".queue a")];
    const at = links.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    links[at + step]?.focus();
  });

  settle(); // a click meant for the page before
  setInterval(() => { if (tell()) refresh(); }, TICK);
  if (open) { // the one before stays in view
    const list = open.closest("form");
    list.scrollTop = open.offsetTop - list.offsetTop - open.offsetHeight;
  }
  tell();
  watch();
})();
