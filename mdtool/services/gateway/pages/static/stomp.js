// STOMP 1.2 over a WebSocket, as much of it as pages of the gateway need.
// After a connection is lost it is opened again, with every subscription, and with the token of the
// page where the gateway requires one.

import { Retry } from "./retry.js";
import { token } from "./token.js";

const BEAT_MS = 10_000;
const UNAUTHORIZED = 4401;
const TOKENS = "/app/auth";
// The message where a token is missing or not valid, but not where that is unknown as yet.
const OF_TOKENS = /^CONNECT: token(?!.*try again)/;
const ESCAPES = { "\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r" };
const ORIGINALS = { "\\\\": "\\", "\\n": "\n", "\\c": ":", "\\r": "\r" };

const escape = (text) => String(text).replace(/[\\\n:\r]/g, (letter) => ESCAPES[letter]);
const unescape = (text) => text.replace(/\\[\\ncr]/g, (pair) => ORIGINALS[pair]);

function encode(command, headers = {}, body = "") {
  const lines = Object.entries(headers).map(([name, value]) =>
    command === "CONNECT" ? `${name}:${value}\n` : `${escape(name)}:${escape(value)}\n`,
  );
  return `${command}\n${lines.join("")}\n${body}\0`;
}

function decode(text) {
  const end = text.indexOf("\n\n");
  const [command, ...lines] = text.slice(0, end).split("\n");
  const headers = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[unescape(line.slice(0, colon))] ??= unescape(line.slice(colon + 1));
  }
  return { command, headers, body: text.slice(end + 2, text.lastIndexOf("\0")) };
}

export class Stomp extends EventTarget {
  // Events: "connected"; "lost" and "refused", whose detail says why.

  #subscriptions = new Map();
  #lastId = 0;
  #beat = null;
  #socket = null;
  #retry = new Retry(() => this.open());
  #isRejected = false;

  isConnected = false;

  constructor() {
    super();
    token.addEventListener("change", () => this.#reopen());
    token.addEventListener("renewed", () => this.#authenticate());
  }

  open() {
    this.#retry.cancel();
    this.#isRejected = false;
    const url = new URL("ws/websocket", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = this.#socket = new WebSocket(url, ["v12.stomp"]);
    socket.onopen = () =>
      this.#write("CONNECT", {
        "accept-version": "1.2",
        host: location.hostname,
        "heart-beat": `${BEAT_MS},0`,
        ...token.headers,
      });
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(data);
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#lose(code, reason);
  }

  // Calls `tell` with the destination and the content of each message; returns how to end that.
  subscribe(destination, tell) {
    const id = `sub-${(this.#lastId += 1)}`;
    this.#subscriptions.set(id, { destination, tell });
    if (this.isConnected) this.#follow(id, destination);
    return () => {
      if (this.#subscriptions.delete(id) && this.isConnected) this.#write("UNSUBSCRIBE", { id });
    };
  }

  // Sends what JSON can carry; while there is no connection it is left at that.
  send(destination, content) {
    if (this.isConnected) {
      const headers = { destination, "content-type": "application/json" };
      this.#write("SEND", headers, JSON.stringify(content));
    }
  }

  // As another principal.
  #reopen() {
    const socket = this.#socket;
    if (socket === null) return;
    this.isConnected = false;
    clearInterval(this.#beat);
    this.open();
    socket.close();
  }

  // With the token that was renewed: on the connection, or where that has ended, on a new one.
  #authenticate() {
    if (this.isConnected) {
      this.#write("SEND", { destination: TOKENS }, token.value);
    } else if (this.#isRejected) {
      this.#reopen();
    }
  }

  // There is no further attempt before there is another token.
  #reject() {
    this.#isRejected = true;
    token.reject();
  }

  #follow(id, destination) {
    this.#write("SUBSCRIBE", { id, destination, receipt: id });
  }

  #write(command, headers, body) {
    this.#socket.send(encode(command, headers, body));
  }

  #take(text) {
    if (text === "\n") return;
    const { command, headers, body } = decode(text);
    if (command === "MESSAGE") {
      const subscription = this.#subscriptions.get(headers.subscription);
      subscription?.tell(headers.destination, JSON.parse(body));
    } else if (command === "CONNECTED") {
      this.isConnected = true;
      this.#retry.reset();
      this.#beat = setInterval(() => this.#socket.send("\n"), BEAT_MS * 0.7);
      for (const [id, { destination }] of this.#subscriptions) {
        this.#follow(id, destination);
      }
      this.dispatchEvent(new CustomEvent("connected"));
    } else if (command === "ERROR" && !this.isConnected) {
      if (OF_TOKENS.test(headers.message)) this.#reject();
      this.dispatchEvent(new CustomEvent("refused", { detail: headers.message }));
    } else if (command === "ERROR") {
      // Else the next connection would end in the same way.
      this.#subscriptions.delete(headers["receipt-id"] ?? `sub-${this.#lastId}`);
      this.dispatchEvent(new CustomEvent("refused", { detail: headers.message }));
    }
  }

  #lose(code, reason) {
    this.isConnected = false;
    clearInterval(this.#beat);
    this.dispatchEvent(new CustomEvent("lost", { detail: reason || `closed with ${code}` }));
    if (code === UNAUTHORIZED) this.#reject();
    if (this.#isRejected) return;
    this.#retry.later();
  }
}
