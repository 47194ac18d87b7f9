// One symbol: its prices, candles, spread, book and tape.

import { Chart } from "./chart.js";
import { drawDepth } from "./depth.js";
import { showLevels } from "./ladder.js";
import { ABSENT, age, decimalsOf, padded, signOf } from "./numbers.js";
import { paced } from "./paced.js";
import { Spread } from "./spread.js";
import { Tape } from "./tape.js";
import { COLUMNS } from "./watchlist.js";

const DEPTH = 10;
const SAMPLE_MS = 1000;
const SHOWN = ["last", "change", "bid", "ask", "volume", "vwap"];

export class SymbolView {
  symbol = null;

  #place;
  #connection;
  #market;
  #alerts;
  #chart;
  #spread;
  #tape;
  #lot = null;
  #draw = paced(() => this.#write());
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
    this.#tape = new Tape(find(".tape tbody"), connection);
    alerts.listen((own) => this.#chart.mark(own));
    market.listen((row) => {
      if (row === null || row.symbol === this.symbol) {
        this.#draw();
      }
    });
    setInterval(() => this.#sample(), SAMPLE_MS);
  }

  show(symbol, interval) {
    const isOther = symbol !== this.symbol;
    this.symbol = symbol;
    this.#place.classList.toggle("empty", symbol === null);
    if (symbol === null) {
      this.#chart.close();
      this.#tape.close();
      this.#endBook();
      return;
    }
    this.#chart.show(symbol, interval);
    this.#alerts.show(symbol);
    if (isOther) {
      this.#showTape();
      this.#spread.clear();
      this.#followBook(symbol);
    }
    this.#draw();
  }

  #showTape() {
    this.#lot = this.#market.rows.get(this.symbol)?.lot ?? null;
    this.#tape.show(this.symbol, this.#lot);
    this.#chart.scale(this.#lot);
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
          book.querySelector(".badge").hidden = !data.partial;
          drawDepth(book.querySelector(".depth"), data.bids, data.asks);
          showLevels(book.querySelector("tbody"), data.bids, data.asks, decimalsOf(prices));
        }
      });
  }

  #write() {
    const row = this.#market.rows.get(this.symbol);
    this.#place.querySelector("h2 bdi").textContent = this.symbol ?? "";
    const isLive = row !== undefined && this.#market.isLive(row);
    this.#place.classList.toggle("stale", !isLive);
    for (const { name, text, isSigned } of COLUMNS.filter((column) => SHOWN.includes(column.name))) {
      const value = this.#place.querySelector(`[data-value="${name}"]`);
      const content = row ? text(row) : ABSENT;
      if (content === value.textContent) {
        continue;
      }
      value.textContent = content;
      if (isSigned) {
        value.dataset.sign = signOf(content);
      }
    }
    this.#writeAge(row, isLive);
    if (row && (row.lot ?? null) !== this.#lot) {
      this.#showTape();
    }
    if (row) {
      this.#chart.addVwap(row.vwap);
    }
  }

  #writeAge(row, isLive) {
    const since = row?.tradedAt ? age(performance.now() - row.tradedAt) : "";
    this.#place.querySelector(".since").textContent = row === undefined ? "no trade yet"
      : isLive ? `${since} ago` : `stale · ${since} old`;
  }

  #sample() {
    const row = this.#market.rows.get(this.symbol);
    document.title = row?.session
      ? `${padded(row.session.close, row.decimals)} ${row.symbol} · mdtool` : "mdtool";
    if (row?.quote) {
      this.#spread.sample(row, this.#market.isQuoteLive(row));
    }
    this.#writeAge(row, row !== undefined && this.#market.isLive(row));
  }
}
