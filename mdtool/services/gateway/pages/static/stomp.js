// STOMP 1.2 over a WebSocket, as much of it as pages of the gateway need.
// After a connection is lost it is opened again, with every subscription.

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 5_000;
const BEAT_MS = 10_000;
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
  #delayMs = FIRST_DELAY_MS;
  #beat = null;
  #socket = null;

  isConnected = false;

  open() {
    const url = new URL("ws/websocket", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.#socket = new WebSocket(url, ["v12.stomp"]);
    this.#socket.onopen = () =>
      this.#write("CONNECT", {
        "accept-version": "1.2",
        host: location.hostname,
        "heart-beat": `${BEAT_MS},0`,
      });
    this.#socket.onmessage = ({ data }) => this.#take(data);
    this.#socket.onclose = ({ code, reason }) => this.#lose(code, reason);
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
      this.#delayMs = FIRST_DELAY_MS;
      this.#beat = setInterval(() => this.#socket.send("\n"), BEAT_MS * 0.7);
      for (const [id, { destination }] of this.#subscriptions) {
        this.#follow(id, destination);
      }
      this.dispatchEvent(new CustomEvent("connected"));
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
    setTimeout(() => this.open(), this.#delayMs);
    this.#delayMs = Math.min(2 * this.#delayMs, LONGEST_DELAY_MS);
  }
}
