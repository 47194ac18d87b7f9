// The first page: a watchlist, and one symbol of it. The layout is in the URL.

import "./sign-in.js";  // first: the user may have come back from the issuer

import { Alerts } from "./alerts.js";
import { Connection } from "./connection.js";
import { Market } from "./market.js";
import { Services } from "./services.js";
import { SymbolView } from "./symbol.js";
import { Watchlist } from "./watchlist.js";

const INTERVALS = ["1s", "1m", "5m", "1h", "1d"];
const SETTLE_MS = 150;  // of the selection, until its symbol is shown

const element = (id) => document.getElementById(id);
const isWide = matchMedia("(min-width: 1000px)");

const connection = new Connection("stream");
const market = new Market(connection);
const watchlist = new Watchlist(element("watchlist"), market);
const alerts = new Alerts(
  document.querySelector(".alerts tbody"), document.querySelector(".alerts .note"), connection);
const view = new SymbolView(element("view"), connection, market, alerts);
new Services(element("services"), element("rate"), connection, watchlist);

let interval = "1m";
let isChosen = false;  // the symbol: by somebody, not by the page
let settling = null;

function readUrl() {
  const query = new URLSearchParams(location.search);
  interval = INTERVALS.includes(query.get("interval")) ? query.get("interval") : "1m";
  element("interval").value = interval;
  element("search").value = query.get("search") ?? "";
  watchlist.arrange({
    sort: query.get("sort") ?? "symbol",
    search: query.get("search") ?? "",
    isStarred: query.get("list") === "starred",
  });
  const symbol = query.get("symbol");
  isChosen = symbol !== null;
  show(symbol);
}

function writeUrl(isNew = false) {
  const query = new URLSearchParams();
  const entries = {
    symbol: isChosen ? view.symbol : null,
    interval: interval === "1m" ? null : interval,
    sort: watchlist.sort === "symbol" ? null : watchlist.sort,
    search: watchlist.search || null,
    list: watchlist.isStarred ? "starred" : null,
  };
  for (const [name, value] of Object.entries(entries)) {
    if (value !== null) {
      query.set(name, value);
    }
  }
  const url = `${location.pathname}${query.size ? `?${query}` : ""}`;
  if (url !== `${location.pathname}${location.search}`) {
    history[isNew ? "pushState" : "replaceState"](null, "", url);
  }
}

function show(symbol) {
  clearTimeout(settling);
  watchlist.select(symbol);
  view.show(symbol, interval);
  document.body.classList.toggle("open", isChosen && symbol !== null);
  element("book-link").href = symbol === null ? "book" : `book?symbol=${encodeURIComponent(symbol)}`;
}

function choose(symbol, isNew = false) {
  isChosen = symbol !== null;
  show(symbol);
  writeUrl(isNew);
}

watchlist.addEventListener("choose", ({ detail: { symbol, isOpened } }) => {
  clearTimeout(settling);
  if (isOpened) {
    choose(symbol, !isWide.matches);
  } else if (isWide.matches) {
    settling = setTimeout(() => choose(symbol), SETTLE_MS);
  }
});
alerts.addEventListener("choose", ({ detail }) => choose(detail, !isWide.matches));
watchlist.addEventListener("layout", () => {
  element("starred").setAttribute("aria-pressed", watchlist.isStarred);
  writeUrl();
});
market.listen((row) => {
  if (row !== null) {
    return;
  }
  const notice = !connection.isConnected && connection.generation > 0
    ? "The connection is lost: prices are as they were. Reconnecting …" : market.problem;
  element("notice").hidden = notice === "";
  element("notice").textContent = notice;
  if (view.symbol === null && isWide.matches && watchlist.first !== null) {
    show(watchlist.first);
  }
});

element("search").addEventListener("input", ({ target }) => {
  watchlist.arrange({ search: target.value });
});
element("starred").addEventListener("click", () => {
  watchlist.arrange({ isStarred: !watchlist.isStarred });
});
element("interval").addEventListener("change", ({ target }) => {
  interval = target.value;
  view.show(view.symbol, interval);
  writeUrl();
});
element("back").addEventListener("click", () => choose(null));
element("help-button").addEventListener("click", () => element("help").showModal());
addEventListener("popstate", readUrl);

const KEYS = {
  "/": () => element("search").select(),
  ArrowDown: () => watchlist.move(1),
  ArrowUp: () => watchlist.move(-1),
  b: () => location.assign(element("book-link").href),
  w: () => watchlist.selected !== null && watchlist.star(watchlist.selected),
  "?": () => element("help").showModal(),
};

addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && event.target === element("search")) {
    element("watchlist").focus();
  } else if (event.key === "Escape" && !isTyping && !isWide.matches && !element("help").open) {
    choose(null);
  }
  const act = document.querySelector("dialog[open]") ? undefined : KEYS[event.key];
  const isModified = event.ctrlKey || event.metaKey || event.altKey;
  const isScrolled = event.key.startsWith("Arrow") && event.target.closest(".panel");
  if (act && !isTyping && !isModified && !isScrolled) {
    event.preventDefault();
    act();
  }
});

readUrl();
