// The market in the page: a row a symbol, read by REST once and now and then, and kept current by
// `/stream` for the symbols that are followed.

import { getAll } from "./rest.js";
import { decimalsOf } from "./numbers.js";
import { token } from "./token.js";

const CHANNELS = { aggregates: "session", quotes: "quote", vwap: "vwap" };
const MAX_FOLLOWED = 250;  // three channels of them, of the 1,000 symbols of a connection
const REFRESH_MS = 10_000;
const RETRY_MS = 1000;
const MAX_POINTS = 120;
const SUBSCRIBABLE = /^[ -~]{1,70}$/;

export class Market {
  rows = new Map();
  problem = "Loading …";  // why there is nothing to show, else ""

  #connection;
  #listeners = new Set();
  #timer = null;
  #followed = [];
  #ends = [];

  constructor(connection) {
    this.#connection = connection;
    connection.addEventListener("change", () => this.#notify(null));
    token.addEventListener("change", () => {
      this.rows.clear();  // another principal may see others
      this.#refresh();
    });
    this.#refresh();
  }

  // Calls `listener` with each row that changed, with null where all may have.
  listen(listener) {
    this.#listeners.add(listener);
  }

  // Keeps these symbols current, and no others.
  follow(symbols) {
    const wanted = [...new Set(symbols)].filter((each) => SUBSCRIBABLE.test(each));
    wanted.length = Math.min(wanted.length, MAX_FOLLOWED);
    wanted.sort();
    if (wanted.join("\n") === this.#followed.join("\n")) {
      return;
    }
    for (const row of this.#followed.map((each) => this.rows.get(each))) {
      if (row && !wanted.includes(row.symbol)) {
        row.generation = null;
      }
    }
    this.#ends.forEach((end) => end());
    this.#followed = wanted;
    this.#ends = wanted.length === 0 ? [] : Object.entries(CHANNELS).map(([channel, part]) =>
      this.#connection.subscribe({ channel, symbols: wanted }, (message) => {
        if (message.data) {
          this.#receive(message.data.symbol, part, message.data);
        }
      }));
  }

  // Whether a row is current: its state came over this connection, and is not stale.
  isLive(row) {
    return this.#connection.isConnected && row.generation === this.#connection.generation
      && !row.session?.stale;
  }

  isQuoteLive(row) {
    return this.isLive(row) && row.quote !== null && !row.quote.stale;
  }

  // Puts closes of bars, oldest first, before the points that were received.
  addPast(row, bars) {
    const past = bars.map((bar) => ({ second: bar.start.slice(0, 19), price: Number(bar.close) }));
    const first = row.points[0]?.second ?? "~";
    row.points = [...past.filter(({ second }) => second < first), ...row.points];
    this.#notify(row);
  }

  async #refresh() {
    clearTimeout(this.#timer);
    let delay = REFRESH_MS;
    try {
      const isFirst = this.rows.size === 0;
      const [sessions, quotes] = await Promise.all([
        getAll("aggregates"), isFirst ? getAll("quotes").catch(() => []) : [],
      ]);
      sessions.forEach((session) => this.#take(session.symbol, "session", session));
      quotes.forEach((quote) => this.#take(quote.symbol, "quote", quote));
      await this.#readLots();
      this.problem = this.rows.size ? "" : "Waiting for the first trade …";
    } catch (error) {
      this.problem = this.rows.size ? "" : error.message;
      if (error.status === 401) {
        this.#notify(null);
        return;  // until there is another token
      }
    }
    if (this.rows.size === 0) {
      delay = RETRY_MS;
    }
    this.#notify(null);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#refresh(), delay);
  }

  // Reads what one unit of volume is, where there are symbols of which that is unknown.
  async #readLots() {
    if ([...this.rows.values()].some(({ lot }) => lot === undefined)) {
      for (const { symbol, lot } of await getAll("symbols")) {
        const row = this.rows.get(symbol);
        if (row) {
          row.lot = lot;
        }
      }
    }
  }

  #receive(symbol, part, data) {
    const row = this.#take(symbol, part, data, true);
    if (part === "session") {
      row.generation = this.#connection.generation;
    }
    this.#notify(row);
  }

  #take(symbol, part, data, isNewest = false) {
    let row = this.rows.get(symbol);
    if (row === undefined) {
      row = {
        symbol, session: null, quote: null, vwap: null, points: [], decimals: 0,
        lot: undefined,      // a decimal string, null where sizes are no lots
        tradedAt: null,      // of performance.now(): clocks of exchanges may be of any day
        generation: null,    // of the connection that its session came over
      };
      this.rows.set(symbol, row);
    }
    const before = row[part];
    // An answer of REST may be older than what the stream has sent meanwhile.
    if (!isNewest && row.generation !== null && row.generation === this.#connection.generation) {
      return row;
    }
    row[part] = data;
    if (part === "session") {
      row.decimals = Math.max(row.decimals, decimalsOf([data.open, data.high, data.low, data.close]));
      if (before?.timestamp !== data.timestamp || before.trades !== data.trades) {
        const age = before === null ? Math.max(0, Date.now() - Date.parse(data.timestamp)) : 0;
        row.tradedAt = performance.now() - age;
        addPoint(row.points, data);
      }
    } else if (part === "quote") {
      row.decimals = Math.max(row.decimals, decimalsOf([data.bid, data.ask, data.last]));
    }
    return row;
  }

  #notify(row) {
    this.#listeners.forEach((listener) => listener(row));
  }
}

// One point a second of exchange time, its last price.
function addPoint(points, { timestamp, close }) {
  const second = timestamp.slice(0, 19);
  const price = Number(close);
  if (points.at(-1)?.second === second) {
    points.at(-1).price = price;
  } else {
    points.push({ second, price });
    if (points.length > MAX_POINTS) {
      points.shift();
    }
  }
}
