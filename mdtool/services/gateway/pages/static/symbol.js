// One symbol: its prices, candles, spread, book and tape.

import { Chart } from "./chart.js";
import { drawDepth } from "./depth.js";
import { showLevels } from "./ladder.js";
import { decimalsOf, padded } from "./numbers.js";
import { Prices } from "./prices.js";
import { Spread } from "./spread.js";
import { Tape } from "./tape.js";

const DEPTH = 10;
const SAMPLE_MS = 1000;

export class SymbolView {
  #place;
  #connection;
  #market;
  #alerts;
  #chart;
  #spread;
  #prices;
  #endBook = () => {};

  constructor(place, connection, market, alerts) {
    const find = (selector) => place.querySelector(selector);
    this.#place = place;
    this.#connection = connection;
    this.#market = market;
    this.#alerts = alerts;
    this.#chart = new Chart(
      find(".chart"), find(".chart-message"), find(".chart-library"), connection);
    this.#spread = new Spread(find(".spread-lines"), find(".spread-value"));
    const tape = new Tape(find(".tape"), connection);
    this.#prices = new Prices(place, market, tape, (row) => {
      this.#chart.scale(row?.lot ?? null);
      this.#chart.addVwap(row?.vwap);
    });
    alerts.listen((own) => this.#chart.mark(own));
    setInterval(() => this.#sample(), SAMPLE_MS);
  }

  get symbol() {
    return this.#prices.symbol;
  }

  show(symbol, interval) {
    const isOther = symbol !== this.symbol;
    this.#prices.show(symbol);
    this.#place.classList.toggle("empty", symbol === null);
    this.#place.querySelector("h2 bdi").textContent = symbol ?? "";
    if (symbol === null) {
      this.#chart.close();
      this.#endBook();
      return;
    }
    this.#chart.show(symbol, interval);
    this.#alerts.show(symbol);
    if (isOther) {
      this.#spread.clear();
      this.#followBook(symbol);
    }
  }

  #followBook(symbol) {
    this.#endBook();
    const book = this.#place.querySelector(".book");
    book.hidden = true;
    this.#endBook = this.#connection.subscribe(
      { channel: "books", symbols: [symbol], depth: DEPTH }, ({ data }) => {
        if (data) {
          const prices = [...data.bids, ...data.asks].map(({ price }) => price);
          book.hidden = false;
          book.classList.toggle("stale", data.stale === true);
          book.querySelector("time").textContent = data.timestamp.slice(0, 19).replace("T", " ");
          book.querySelector(".badge").hidden = !data.partial;
          drawDepth(book.querySelector(".depth"), data.bids, data.asks);
          showLevels(book.querySelector("tbody"), data.bids, data.asks, decimalsOf(prices));
        }
      });
  }

  #sample() {
    const row = this.#market.rows.get(this.symbol);
    document.title = row?.session
      ? `${padded(row.session.close, row.decimals)} ${row.symbol} · mdtool` : "mdtool";
    if (row?.quote) {
      this.#spread.sample(row, this.#market.isQuoteLive(row));
    }
  }
}
