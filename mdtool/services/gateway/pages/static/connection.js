// A client of `WS /stream` that keeps its subscriptions: after a lost connection it reconnects,
// subscribes again, and resumes trades behind the last one that it has.

import { Retry } from "./retry.js";
import { isRow } from "./rows.js";
import { token } from "./token.js";

const PING_MS = 10_000;
const SILENCE_MS = 25_000;  // of a connection that answers no ping
const UNAUTHORIZED = 4401;
const MAX_LENGTH = 1 << 20;  // of a message
const CONTENTS = ["data", "missed", "error"];  // of those for a subscription

// Events: "change", whenever `state` or `retryAt` does.
export class Connection extends EventTarget {
  state = "connecting";  // or "connected", "waiting"
  retryAt = null;        // of Date.now(), while it waits
  received = 0;          // messages
  malformed = 0;         // messages that are none
  generation = 0;        // connections that were made

  #url;
  #socket = null;
  #subscriptions = new Map();
  #ids = 0;
  #receivedAt = 0;
  #retry = new Retry(() => this.#connect());

  constructor(path) {
    super();
    this.#url = new URL(path, document.baseURI);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    setInterval(() => this.#ping(), PING_MS);
    // A connection may have been lost meanwhile, without a word.
    addEventListener("online", () => this.#ping());
    document.addEventListener("visibilitychange", () => this.#ping());
    token.addEventListener("change", () => this.#reconnect());
    token.addEventListener("renewed", () => this.#authenticate());
    this.#connect();
  }

  get isConnected() {
    return this.state === "connected";
  }

  // Calls `receive` with each message of a channel, and with {error} when it is rejected.
  // Returns a function that ends the subscription.
  subscribe(request, receive) {
    const id = ++this.#ids;
    this.#subscriptions.set(id, { request, receive, after: null });
    if (this.isConnected) {
      this.#request(id);
    }
    return () => {
      if (this.#subscriptions.delete(id) && this.isConnected) {
        this.#send({ op: "unsubscribe", id });
      }
    };
  }

  #connect() {
    this.#retry.cancel();
    this.#become("connecting");
    const socket = this.#socket = new WebSocket(this.#url);
    socket.addEventListener("open", () => {
      this.generation += 1;
      this.#receivedAt = performance.now();
      this.#become("connected");
      this.#authenticate();
      for (const id of this.#subscriptions.keys()) {
        this.#request(id);
      }
    });
    socket.addEventListener("message", ({ data }) => {
      if (socket === this.#socket) {
        this.#receive(data);
      }
    });
    socket.addEventListener("close", ({ code }) => {
      if (socket === this.#socket) {
        this.#wait();
      }
      if (code === UNAUTHORIZED) {
        token.reject();
      }
    });
  }

  #authenticate() {
    if (this.isConnected && token.value !== null) {
      this.#send({ op: "auth", token: token.value });
    }
  }

  #wait() {
    this.#become("waiting", Date.now() + this.#retry.later());
  }

  // As another principal.
  #reconnect() {
    const socket = this.#socket;
    this.#connect();
    socket?.close();
  }

  #ping() {
    if (!this.isConnected) {
      return;
    }
    if (performance.now() - this.#receivedAt > SILENCE_MS) {
      const socket = this.#socket;
      this.#socket = null;
      socket.close();
      this.#wait();
    } else {
      this.#send({ op: "ping" });
    }
  }

  #become(state, retryAt = null) {
    this.state = state;
    this.retryAt = retryAt;
    this.dispatchEvent(new Event("change"));
  }

  #request(id) {
    const { request, after } = this.#subscriptions.get(id);
    this.#send({ op: "subscribe", id, ...request, ...(after === null ? {} : { after }) });
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #receive(text) {
    this.#receivedAt = performance.now();
    this.#retry.reset();
    this.received += 1;
    const message = parsed(text);
    if (message === null) {
      this.malformed += 1;
      return;
    }
    const subscription = this.#subscriptions.get(message.id);
    if (subscription === undefined || !CONTENTS.some((name) => name in message)) {
      return;
    }
    if (message.channel === "trades" && message.data) {
      subscription.after = message.data.sequence;
    }
    subscription.receive(message);
  }
}

// The message of a text, null where it is none of a gateway's.
function parsed(text) {
  let message;
  try {
    message = text.length <= MAX_LENGTH ? JSON.parse(text) : null;
  } catch {
    return null;
  }
  if (message === null || typeof message !== "object" || Array.isArray(message)) {
    return null;
  }
  const { data, missed, error } = message;
  const isWhole = (data === undefined || isRow(message.channel, data))
    && (missed === undefined || missed === null || Number.isSafeInteger(missed))
    && (error === undefined || typeof error?.message === "string");
  return isWhole ? message : null;
}
