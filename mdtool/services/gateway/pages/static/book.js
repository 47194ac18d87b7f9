// The order book's page: starts the sender and the receiver, and shows the book as it changes.

import "./sign-in.js";  // first: the user may have come back from the issuer

import { showLevels } from "./ladder.js";
import { count, decimalsOf, padded } from "./numbers.js";
import { request } from "./rest.js";

const DEPTH = 10;
const BUSY_MS = 200;    // between looks at a book that changes
const QUIET_MS = 1000;  // between looks at one that does not
const TIMEOUT_MS = 5000;
const WORDS = {
  sender: { done: "sent the whole file", stopped: "stopped before the end of the file" },
  receiver: {
    waiting: "waiting for the stream",
    processing: "building the book",
    done: "has the whole file",
    stopped: "stopped: the book is as of the last record received",
  },
};
const BUSY_STATES = new Set(["streaming", "waiting", "connecting", "processing", "reconnecting"]);

const element = (id) => document.getElementById(id);
const requested = new URLSearchParams(location.search).get("symbol");
let instruments = "";

class Unauthorized extends Error {}

async function ask(path, options = {}) {
  const response = await request(path, options, TIMEOUT_MS);
  if (response.status === 401) {
    throw new Unauthorized();
  }
  return { status: response.status, text: await response.text() };
}

async function look() {
  let services = null;
  try {
    const answer = JSON.parse((await ask("api/microservices/status")).text);
    if (answer.sender) {  // also where one of them is unavailable
      services = answer;
    } else {
      notify(answer.message, true);
    }
  } catch (error) {
    const isUnauthorized = error instanceof Unauthorized;
    notify(isUnauthorized ? "Sign in to see the book." : "The gateway does not answer.", true);
  }
  const isBusy = services !== null && showServices(services);
  if (services?.receiver.books?.length) {
    await showBook(services.receiver).catch(() => {});
  }
  setTimeout(look, isBusy ? BUSY_MS : QUIET_MS);
}

// Returns whether there is anything to be expected soon.
function showServices({ sender, receiver }) {
  showService(element("sender"), sender, WORDS.sender);
  showService(element("receiver"), receiver, WORDS.receiver, sender);
  const unreachable = [["sender", sender], ["receiver", receiver]].filter(([, s]) => !s.reachable);
  const failed = [sender, receiver].find((service) => service.error);
  if (unreachable.length > 0) {
    const names = unreachable.map(([name]) => name).join(" and the ");
    notify(`The ${names} cannot be reached. mdtool serve all --book FILE runs both.`, true);
  } else if (failed) {
    notify(failed.error, true);
  } else {
    notify("");
  }
  const isPaused = sender.state === "paused";
  const isStreaming = sender.state === "streaming" || isPaused;
  const isProcessing = BUSY_STATES.has(receiver.state);
  element("start").disabled = unreachable.length > 0;
  element("start").hidden = isStreaming && isProcessing;
  element("pause").hidden = element("stop").hidden = !isStreaming;
  element("pause").textContent = isPaused ? "Resume" : "Pause";
  showProgress(sender, receiver);
  return isStreaming || isProcessing;
}

function showService(where, service, words, source = service) {
  // The receiver only sees its stream end; the sender knows whether that was the whole file.
  const isCut = service.state === "done" && source.reachable && source.state === "stopped";
  const state = !service.reachable ? "unavailable" : isCut ? "stopped" : service.state;
  where.dataset.state = state;
  where.querySelector("dd").textContent = words[state] ?? state;
  where.title = service.address;
}

function showProgress(sender, receiver) {
  const isOver = ["done", "failed", "stopped"].includes(receiver.state);
  const files = (sender.files ?? []).map((path) => path.split("/").pop());
  element("file").textContent = files.join(", ");
  element("file").title = (sender.files ?? []).join("\n");
  const part = sender.progress;
  element("part").hidden = part == null;
  element("part").value = part ?? 0;
  list(element("progress"), [
    ["records", count(receiver.records)],
    ["per second", isOver ? null : count(receiver.records_per_s)],
    ["took", isOver ? `${receiver.elapsed_s.toFixed(3)} s` : null],
    ["sent", count(sender.position)],
    ["done", part == null ? null : `${(100 * part).toFixed(1)} %`],
    ["speed", sender.speed == null ? null : sender.speed === 0 ? "unpaced" : `${sender.speed}×`],
    ["skipped", receiver.skipped ? count(receiver.skipped) : null],
    ["resumed", receiver.resumed ? count(receiver.resumed) : null],
    ["receivers", count(sender.receivers)],
  ]);
}

async function showBook(receiver) {
  chooseAmong(receiver.books);
  const symbol = element("instrument").value;
  const query = new URLSearchParams({ last: "true", depth: DEPTH, symbols: symbol });
  const { status, text } = await ask(`api/order-book?${query}`);
  if (status !== 200 || text === "") {
    return;
  }
  const book = JSON.parse(text.slice(0, text.indexOf("\n")));
  const of = receiver.books.find((candidate) => candidate.symbol === symbol) ?? {};
  element("book").classList.remove("empty");
  element("contents").hidden = false;
  element("symbol").textContent = book.symbol;
  element("partial").hidden = !book.partial;
  element("clock").textContent = `${book.timestamp.slice(0, 23).replace("T", " ")} UTC`;
  element("clock").dateTime = book.timestamp;
  const [bids, asks] = [book.levels.bids, book.levels.asks].map((levels) =>
    levels.map((level) => ({ ...level, orders: level.count })));
  const decimals = decimalsOf(bids.concat(asks).map(({ price }) => price));
  showQuote(book.bbo, decimals);
  showLevels(element("levels"), bids, asks, decimals);
  showStats(book, of);
}

function chooseAmong(books) {
  const symbols = [...new Set(books.map((book) => book.symbol))];
  if (symbols.join() === instruments) {
    return;
  }
  instruments = symbols.join();
  const select = element("instrument");
  const before = select.value || requested;
  select.replaceChildren(...symbols.map((symbol) => new Option(symbol, symbol)));
  select.value = symbols.includes(before) ? before : symbols[0];
  element("choice").hidden = symbols.length < 2;
}

function showQuote({ bid, ask: offer }, decimals) {
  for (const [side, level] of [["bid", bid], ["ask", offer]]) {
    element(side).textContent = level ? padded(level.price, decimals) : "—";
    element(`${side}-size`).textContent = level
      ? `${count(level.size)} in ${orders(level.count)}` : "";
  }
  const spread = bid && offer ? Number(offer.price) - Number(bid.price) : null;
  const isCrossed = spread !== null && spread < 0;
  element("spread").textContent = spread === null ? "—" : Math.abs(spread).toFixed(decimals);
  element("spread-name").textContent = isCrossed ? "crossed by" : "spread";
  element("spread").parentElement.classList.toggle("crossed", isCrossed);
}

function showStats(book, of) {
  const trade = book.last_trade;
  list(element("stats"), [
    ["orders", count(book.stats.total_orders)],
    ["bid levels", count(book.stats.bid_levels)],
    ["ask levels", count(book.stats.ask_levels)],
    ["trades", count(of.trades)],
    ["volume", count(of.volume)],
    ["last trade", trade?.price ? `${count(trade.size)} @ ${trade.price}` : null],
  ]);
  const anomalies = Object.entries(book.anomalies);
  element("anomalies").hidden = anomalies.length === 0;
  list(
    element("anomalies").querySelector("dl"),
    anomalies.map(([kind, number]) => [kind.replaceAll("_", " "), count(number)]),
  );
}

function list(where, entries) {
  where.replaceChildren(...entries.filter(([, text]) => text != null).flatMap(([name, text]) => {
    const term = document.createElement("dt");
    const value = document.createElement("dd");
    term.textContent = name;
    value.textContent = text;
    return [term, value];
  }));
}

function notify(text, isError = false) {
  element("notice").hidden = text === "";
  element("notice").textContent = text;
  element("notice").classList.toggle("error", isError);
}

const orders = (number) => `${count(number)} ${number === 1 ? "order" : "orders"}`;

async function tell(path) {
  try {
    const { status, text } = await ask(path, { method: "POST" });
    if (status !== 200) {
      notify(JSON.parse(text).message, status !== 409);
    }
  } catch {
    notify("The gateway does not answer.", true);
  }
}

element("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  element("start").disabled = true;
  const speed = element("speed").value;
  tell(`api/start-streaming${speed === "" ? "" : `?speed=${speed}`}`);
});
element("pause").addEventListener("click", () => {
  tell(element("pause").textContent === "Pause" ? "api/pause-streaming" : "api/resume-streaming");
});
element("stop").addEventListener("click", () => tell("api/stop-streaming"));
element("speed").addEventListener("change", () => {
  if (!element("stop").hidden) {
    tell(`api/set-speed?speed=${element("speed").value}`);
  }
});

look();
