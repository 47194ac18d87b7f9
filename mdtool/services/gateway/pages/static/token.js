// The token that requests carry where the gateway authenticates its clients. It is in memory alone:
// a page that is loaded again has none. One that an issuer gave is renewed before it expires.

const PART = 2 / 3;  // of its time, after which a token is renewed
const LEAST_MS = 1000;
const LONGEST_MS = 2 ** 31 - 1;  // of a timer

// Events: "change", of the principal; "renewed"; "rejected", when the gateway requires one, or
// another.
class Token extends EventTarget {
  #value = null;
  #timer = null;

  get value() {
    return this.#value;
  }

  // A pasted token has nothing that renews it.
  set value(value) {
    this.#take(value);
    this.dispatchEvent(new Event("change"));
  }

  // What requests have as headers.
  get headers() {
    return this.#value === null ? {} : { Authorization: `Bearer ${this.#value}` };
  }

  // Exchanges what the issuer gave a user, or what renews that, for a token.
  async exchange(given) {
    const response = await fetch("api/v2/sign-in", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(given),
    });
    const { data, error } = await response.json();
    if (!response.ok) {
      throw new Error(error?.message ?? response.statusText);
    }
    const isNew = this.#value === null;
    this.#take(data.token);
    if (data.refresh !== null) {
      const delay = Math.max(LEAST_MS, data.expires_in_s * PART * 1000);
      this.#timer = setTimeout(() => this.#renew(data), Math.min(delay, LONGEST_MS));
    }
    this.dispatchEvent(new Event(isNew ? "change" : "renewed"));
  }

  reject() {
    this.dispatchEvent(new Event("rejected"));
  }

  // Where that fails, the gateway rejects the token once it has expired.
  async #renew({ refresh }) {
    await this.exchange({ refresh }).catch(() => {});
  }

  #take(value) {
    clearTimeout(this.#timer);
    this.#value = value;
  }
}

export const token = new Token();
