// Keeps an open approval page up to date: adds new requests, removes decided ones, and keeps what a person types.
// The page works without it. Nothing here decides; only a form that a person submits does.
"use strict";

(() => {
  const root = document.body.dataset.root;
  const announce = document.getElementById("announce");
  const live = document.getElementById("live");
  const SETTLE = 700; // milliseconds in which a page that has just moved under the pointer takes no decision
  const TICK = 10_000;
  const RETRY = 3_000;
  let main = document.getElementById("main");
  let skew = Date.now() - Number(main.dataset.clock) * 1000;
  let settled = 0;
  let events = null;
  let refreshing = false;
  let again = false;
  let retry = 0;
  let out = false; // no longer let in

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
    return over;
  };

  // Updates

  const merge = (list, fresh) => {
    const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
    const added = [];
    let removed = 0;
    const kept = [...fresh.children].map((child) => {
      const known = old.get(child.dataset.key);
      old.delete(child.dataset.key);
      if (known) return known; // as it is: with its focus, and with what was typed
      added.push(child);
      return child;
    });
    for (const gone of old.values()) {
      if (gone.contains(document.activeElement)) document.getElementById("waiting").focus();
      gone.remove();
      removed += 1;
    }
    kept.forEach((child, place) => {
      if (list.children[place] !== child) list.insertBefore(child, list.children[place] ?? null);
    });
    return { added, removed };
  };

  const take = (fresh) => {
    for (const id of ["waiting", "lead"]) {
      document.getElementById(id).textContent = fresh.querySelector(`#${id}`).textContent;
    }
    const count = Number(fresh.dataset.count);
    document.title = document.title.replace(/^(\(\d+\) )?/, count ? `(${count}) ` : "");
    const said = [];
    for (const list of main.querySelectorAll("[data-list]")) {
      const { added, removed } = merge(list, fresh.querySelector(`[data-list="${list.dataset.list}"]`));
      if (list.dataset.list !== "questions" || added.length + removed === 0) continue;
      settle();
      for (const question of added) {
        question.classList.add("new");
        said.push(`New question: ${question.querySelector("h2").textContent}.`);
      }
      if (removed) said.push(removed === 1 ? "One question is over." : `${removed} questions are over.`);
    }
    if (said.length) say(`${said.join(" ")} ${document.getElementById("waiting").textContent}.`);
    main.dataset.revision = fresh.dataset.revision;
    skew = Date.now() - Number(fresh.dataset.clock) * 1000;
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
      const answer = await fetch(`${root}now`, { cache: "no-store", credentials: "same-origin", redirect: "error" });
      if (answer.status === 403) { lost("You are no longer let in"); return; }
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

  const check = (input) => {
    const hint = document.getElementById(input.id.replace("name-", "hint-"));
    const expected = input.dataset.expected;
    const matches = input.value === expected;
    // The server also accepts an escaped name in its original form.
    const begins = expected.startsWith(input.value) || expected.includes("\\u{");
    if (matches) {
      hint.dataset.state = "match";
      hint.textContent = "This is the name. You can approve.";
    } else if (begins) {
      delete hint.dataset.state;
      hint.textContent = "Letter by letter, so that it is this one and no other.";
    } else {
      hint.dataset.state = "wrong";
      hint.textContent = "This is not the same: look at capitals, spaces and signs.";
    }
    if (matches || begins) input.removeAttribute("aria-invalid");
    return matches || expected.includes("\\u{");
  };

  document.addEventListener("input", (event) => {
    if (event.target.dataset.expected !== undefined) check(event.target);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    const input = form.querySelector("[data-expected]");
    if ("settling" in main.dataset && main.contains(form)) { // signing out decides nothing
      event.preventDefault();
      say("The page has just changed. Look again, then decide.");
    } else if ("sent" in form.dataset) {
      event.preventDefault();
    } else if (input && !check(input) && input.checkValidity()) {
      event.preventDefault();
      const hint = document.getElementById(input.id.replace("name-", "hint-"));
      hint.dataset.state = "wrong";
      hint.textContent = "Not approved: what you typed is not the same yet.";
      input.setAttribute("aria-invalid", "true");
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

  setInterval(() => { if (tell()) refresh(); }, TICK);
  tell();
  watch();
})();
