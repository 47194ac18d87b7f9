// The prices of one symbol, in elements whose `data-value` names a column of the watchlist, and its
// tape; they are marked as stale, with their age, while they are not current.

import { ABSENT, age, signOf } from "./numbers.js";
import { paced } from "./paced.js";
import { COLUMNS } from "./watchlist.js";

const AGE_MS = 1000;

export class Prices {
  symbol = null;

  #place;
  #market;
  #tape;
  #written;
  #lot = null;
  #draw = paced(() => this.#write());

  // Calls `written` with the row of the symbol, undefined where there is none, once it is written.
  constructor(place, market, tape, written = () => {}) {
    this.#place = place;
    this.#market = market;
    this.#tape = tape;
    this.#written = written;
    market.listen((row) => {
      if (row === null || row.symbol === this.symbol) {
        this.#draw();
      }
    });
    setInterval(() => this.#writeAge(), AGE_MS);
  }

  show(symbol) {
    if (symbol === this.symbol) {
      return;
    }
    this.symbol = symbol;
    if (symbol === null) {
      this.#tape.close();
    } else {
      this.#showTape();
    }
    this.#draw();
  }

  #showTape() {
    this.#lot = this.#market.rows.get(this.symbol)?.lot ?? null;
    this.#tape.show(this.symbol, this.#lot);
  }

  #write() {
    const row = this.#market.rows.get(this.symbol);
    for (const { name, text, isSigned } of COLUMNS) {
      const value = this.#place.querySelector(`[data-value="${name}"]`);
      const content = row ? text(row) : ABSENT;
      if (value === null || content === value.textContent) {
        continue;
      }
      value.textContent = content;
      if (isSigned) {
        value.dataset.sign = signOf(content);
      }
    }
    this.#writeAge();
    if (row && (row.lot ?? null) !== this.#lot) {
      this.#showTape();
    }
    this.#written(row);
  }

  #writeAge() {
    const row = this.#market.rows.get(this.symbol);
    const isLive = row !== undefined && this.#market.isLive(row);
    const since = row?.tradedAt ? age(performance.now() - row.tradedAt) : "";
    this.#place.classList.toggle("stale", !isLive);
    this.#place.querySelector(".since").textContent = row === undefined ? "no trade yet"
      : isLive ? `${since} ago` : `stale · ${since} old`;
  }
}
