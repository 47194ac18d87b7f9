// The token that requests carry where the gateway authenticates its clients. It is stored until the
// tab is closed.

import { store, stored } from "./storage.js";

// Events: "change"; "rejected", when the gateway requires one, or another.
class Token extends EventTarget {
  #value = stored("sessionStorage", "token");

  get value() {
    return this.#value;
  }

  set value(value) {
    this.#value = value;
    store("sessionStorage", "token", value);
    this.dispatchEvent(new Event("change"));
  }

  // What requests have as headers.
  get headers() {
    return this.#value === null ? {} : { Authorization: `Bearer ${this.#value}` };
  }

  reject() {
    this.dispatchEvent(new Event("rejected"));
  }
}

export const token = new Token();
