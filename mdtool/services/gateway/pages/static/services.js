// The header of the dashboard: the connection, the services behind the gateway, the rates of what
// comes in and goes out, and how long updates take to the screen.

import { count } from "./numbers.js";
import { token } from "./token.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const RATE_MS = 1000;
const LONGEST_DELAY_MS = 60_000;  // above it, times are those of a replay

export class Services {
  #list;
  #rate;
  #connection;
  #seen = new Set(["gateway", "aggregator"]);
  #health = null;
  #rates = null;  // {ticks, sent}, a second
  #counts = null;  // {at, ticks, sent}, of the last report
  #isAllowed = true;  // to read it
  #delays = [];
  #received = 0;

  constructor(list, rate, connection, watchlist) {
    this.#list = list;
    this.#rate = rate;
    this.#connection = connection;
    connection.addEventListener("change", () => {
      this.#draw();
      if (connection.isConnected) {
        this.#read();
      }
    });
    token.addEventListener("change", () => {
      this.#isAllowed = true;
    });
    watchlist.addEventListener("paint", ({ detail }) => this.#delays.push(Date.now() - detail));
    setInterval(() => this.#writeRate(), RATE_MS);
    setInterval(() => {
      if (connection.isConnected && !document.hidden) {
        this.#read();
      }
    }, EVERY_MS);
    this.#draw();
  }

  async #read() {
    if (!this.#isAllowed) {
      return;
    }
    try {
      const response = await fetch("health",
        { signal: AbortSignal.timeout(TIMEOUT_MS), headers: token.headers });
      this.#isAllowed = ![401, 403].includes(response.status);
      this.#health = this.#isAllowed ? await response.json() : null;
    } catch {
      this.#health = null;
    }
    this.#measure();
    this.#draw();
  }

  // What is counted may begin at 0 again, with another process.
  #measure() {
    const before = this.#counts;
    this.#counts = this.#health === null ? null
      : { at: performance.now(), ticks: this.#health.ticks, sent: this.#health.sent };
    const now = this.#counts;
    const isKnown = before !== null && now !== null && before.ticks !== null
      && now.ticks >= before.ticks && now.sent >= before.sent;
    const perSecond = (name) => Math.round(1000 * (now[name] - before[name]) / (now.at - before.at));
    this.#rates = isKnown ? { ticks: perSecond("ticks"), sent: perSecond("sent") } : null;
  }

  // A service that has never been connected was not started, as far as this page can know.
  #states() {
    const { state, retryAt } = this.#connection;
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const gateway = { connected: "ready", connecting: "connecting", waiting: "reconnecting" }[state];
    const title = state === "waiting" ? `reconnects in ${seconds} s` : "this page's connection";
    const states = [["gateway", gateway, title]];
    const health = this.#connection.isConnected ? this.#health : null;
    if (health !== null) {
      const { status, aggregator, quotes, vwap, store, sender, receiver } = health;
      const parts = { aggregator, quotes: quotes?.source, vwap, store, sender, receiver };
      for (const [name, part] of Object.entries(parts)) {
        if (part?.connected) {
          this.#seen.add(name);
        }
        if (part && this.#seen.has(name)) {
          const isBlocked = name === "aggregator" && status === "blocked";
          const word = !part.connected ? "unavailable" : isBlocked ? "blocked" : "ready";
          const why = isBlocked ? `blocked by backpressure: ${part.message}` : part.message;
          states.push([name, word, why ?? part.address]);
        }
      }
    }
    return states;
  }

  #draw() {
    const states = this.#states();
    const key = JSON.stringify(states);
    if (this.#list.dataset.key === key) {
      return;
    }
    this.#list.dataset.key = key;
    this.#list.replaceChildren(...states.map(([name, state, title]) => {
      const group = document.createElement("div");
      group.className = "service";
      group.id = `service-${name}`;
      group.dataset.state = state;
      group.title = title;
      const term = document.createElement("dt");
      term.textContent = name;
      const value = document.createElement("dd");
      value.textContent = state;
      group.append(term, value);
      return group;
    }));
  }

  #writeRate() {
    this.#draw();
    const received = this.#connection.received - this.#received;
    this.#received = this.#connection.received;
    const delays = this.#delays.filter(Number.isFinite).sort((one, other) => one - other);
    const median = delays[delays.length >> 1];
    this.#delays = [];
    const isDelay = median >= 0 && median < LONGEST_DELAY_MS;
    const parts = this.#rates === null ? [`${count(received)} updates/s`]
      : [`${count(this.#rates.ticks)} in/s`, `${count(this.#rates.sent)} out/s`];
    this.#rate.dataset.received = received;
    this.#rate.textContent = !this.#connection.isConnected ? ""
      : [...parts, ...isDelay ? [`${Math.round(median)} ms to screen`] : []].join(" · ");
  }
}
