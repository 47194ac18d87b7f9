// Alerts of all symbols as they begin and end, the newest first, and those of the symbol shown.

import { paced } from "./paced.js";
import { get, one } from "./rest.js";
import { timeOfDay } from "./numbers.js";

const MAX_ROWS = 100;
const MAX_KEPT = 1000;
const PAGE = 200;

// Events: "choose", with a symbol as `detail`.
export class Alerts extends EventTarget {
  #body;
  #note;
  #connection;
  #kept = new Map();  // by id, in the order of their arrival
  #listeners = new Set();
  #shown = null;      // the symbol
  #generation = 0;
  #draw = paced(() => this.#paint());

  // `note` is where to say why there are none.
  constructor(body, note, connection) {
    super();
    this.#body = body;
    this.#note = note;
    this.#connection = connection;
    connection.subscribe({ channel: "alerts", symbols: ["*"] }, ({ data, error }) => {
      if (data) {
        this.#take(data);
        this.#draw();
      } else if (error) {
        this.#note.textContent = error.message;
      }
    });
    connection.addEventListener("change", () => {
      // What the page missed while it was disconnected is history.
      const isNew = connection.isConnected && connection.generation !== this.#generation;
      if (isNew && this.#shown !== null) {
        this.#read(this.#shown);
      }
    });
    body.addEventListener("click", ({ target }) => {
      const symbol = target.closest("button")?.dataset.symbol;
      if (symbol !== undefined) {
        this.dispatchEvent(new CustomEvent("choose", { detail: symbol }));
      }
    });
  }

  // Calls `listener` with the alerts of the symbol shown, whenever they change.
  listen(listener) {
    this.#listeners.add(listener);
  }

  show(symbol) {
    this.#shown = symbol;
    if (symbol !== null) {
      this.#draw();
      this.#read(symbol);
    }
  }

  async #read(symbol) {
    this.#generation = this.#connection.generation;
    try {
      const { data } = await get(one("alerts", symbol), { limit: PAGE });
      data.reverse().forEach((alert) => this.#take(alert));
      this.#draw();
    } catch (error) {
      if (error.status !== 404 && this.#kept.size === 0) {
        this.#note.textContent = error.message;
      }
    }
  }

  #take(alert) {
    // An answer of REST may be older than what the stream has sent meanwhile.
    if (this.#kept.get(alert.id)?.end) {
      return;
    }
    this.#kept.set(alert.id, alert);
    if (this.#kept.size > MAX_KEPT) {
      this.#kept.delete(this.#kept.keys().next().value);
    }
  }

  #paint() {
    const alerts = [...this.#kept.values()]
      .sort((one, other) => (one.begin < other.begin ? 1 : one.begin > other.begin ? -1 : 0));
    this.#note.hidden = alerts.length > 0;
    this.#body.replaceChildren(...alerts.slice(0, MAX_ROWS).map(rowOf));
    const own = alerts.filter(({ symbol }) => symbol === this.#shown);
    this.#listeners.forEach((listener) => listener(own));
  }
}

function rowOf(alert) {
  const row = document.createElement("tr");
  row.dataset.severity = alert.severity;
  row.dataset.id = alert.id;
  row.insertCell().textContent = timeOfDay(alert.begin).slice(0, 8);
  const button = document.createElement("button");
  const name = document.createElement("bdi");
  name.textContent = alert.symbol;
  button.type = "button";
  button.dataset.symbol = alert.symbol;
  button.append(name);
  row.insertCell().append(button);
  row.insertCell().textContent = alert.kind;
  row.insertCell().textContent = alert.end === null ? `${alert.severity}, open` : alert.severity;
  row.title = `${alert.value} against ${alert.baseline}; score ${alert.score}, `
    + `limit ${alert.limit}`;
  return row;
}
