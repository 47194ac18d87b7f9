// The tape: trades as they arrive, newest first, with a line where some are missing.

import { amount, count, decimalsOf, padded, timeOfDay } from "./numbers.js";
import { paced } from "./paced.js";

const MAX_ROWS = 100;

export class Tape {
  #body;
  #connection;
  #end = () => {};
  #waiting = [];  // messages, oldest first
  #sequences = new Set();
  #draw = paced(() => this.#paint());
  #price = null;
  #decimals = 0;
  #lot = null;

  constructor(place, connection) {
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["time, UTC", "price", "size"]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    place.append(table);
    this.#body = table.createTBody();
    this.#connection = connection;
  }

  show(symbol, lot) {
    this.close();
    this.#lot = lot;
    this.#end = this.#connection.subscribe(
      { channel: "trades", symbols: [symbol] }, (message) => this.#receive(message));
  }

  close() {
    this.#end();
    this.#end = () => {};
    this.#price = null;
    this.#waiting = [];
    this.#sequences.clear();
    this.#decimals = 0;
    this.#body.replaceChildren();
  }

  #receive(message) {
    if (message.data && this.#sequences.has(message.data.sequence)) {
      return;
    }
    this.#sequences.add(message.data?.sequence);
    this.#waiting.push(message);
    for (const { data } of this.#waiting.splice(0, this.#waiting.length - MAX_ROWS)) {
      this.#sequences.delete(data?.sequence);
    }
    this.#draw();
  }

  #paint() {
    const messages = this.#waiting;
    this.#waiting = [];
    this.#body.prepend(...messages.map((message) => this.#row(message)).reverse());
    while (this.#body.childElementCount > MAX_ROWS) {
      this.#sequences.delete(this.#body.lastElementChild.dataset.sequence);
      this.#body.lastElementChild.remove();
    }
  }

  #row({ data, missed, error }) {
    if (data) {
      return this.#tradeRow(data);
    }
    return noteRow(error ? error.message
      : `${missed === null ? "some" : count(missed)} trades missed`);
  }

  #tradeRow({ sequence, timestamp, price, size }) {
    const row = document.createElement("tr");
    row.dataset.sequence = sequence;
    const value = Number(price);
    row.dataset.sign = this.#price === null || value === this.#price
      ? "" : value > this.#price ? "up" : "down";
    this.#price = value;
    this.#decimals = Math.max(this.#decimals, decimalsOf([price]));
    for (const text of [timeOfDay(timestamp), padded(price, this.#decimals), amount(size, this.#lot)]) {
      row.insertCell().textContent = text;
    }
    return row;
  }
}

function noteRow(text) {
  const row = document.createElement("tr");
  row.className = "gap";
  const cell = row.insertCell();
  cell.colSpan = 3;
  cell.textContent = text;
  return row;
}
