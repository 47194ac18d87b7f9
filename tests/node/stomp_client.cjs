// What @stomp/stompjs makes of the gateway, over a WebSocket or over SockJS by one transport.
// node stomp_client.cjs URL websocket|sockjs:TRANSPORT VERSION DESTINATION, with a token in
// MDTOOL_TOKEN or none
//
// Says as JSON lines what happens; for each line on stdin it does what that says.

const { Client, Versions } = require("@stomp/stompjs");
const readline = require("node:readline");

const [url, transport, version, destination] = process.argv.slice(2);
const token = process.env.MDTOOL_TOKEN;
const say = (event) => process.stdout.write(JSON.stringify(event) + "\n");

function socket() {
  if (transport === "websocket") {
    const WebSocket = require("ws");
    return new WebSocket(url.replace("http", "ws") + "/ws/websocket", Versions.default.protocolVersions());
  }
  const SockJS = require("sockjs-client");
  return new SockJS(url + "/ws", null, { transports: [transport.split(":")[1]] });
}

const client = new Client({
  webSocketFactory: socket,
  stompVersions: new Versions([version]),
  connectHeaders: token ? { Authorization: `Bearer ${token}` } : {},
  reconnectDelay: 0,
  heartbeatIncoming: 200,
  heartbeatOutgoing: 200,
  onConnect: (frame) => {
    say({ event: "connected", version: frame.headers.version });
    client.subscribe(destination, ({ headers, body }) =>
      say({ event: "message", destination: headers.destination, body: JSON.parse(body) }),
    );
  },
  onStompError: ({ headers }) => say({ event: "error", message: headers.message }),
  onWebSocketClose: ({ code, reason }) => say({ event: "closed", code, reason }),
  onDisconnect: () => say({ event: "disconnected" }),
});

const orders = {
  send: ({ to, body }) => client.publish({ destination: to, body }),
  unsubscribe: () => {
    client.watchForReceipt("unsubscribed", () => say({ event: "unsubscribed" }));
    client.unsubscribe("sub-0", { receipt: "unsubscribed" });
  },
  transaction: ({ to, bodies, ends }) => {
    const transaction = client.begin();
    for (const body of bodies) {
      client.publish({ destination: to, body, headers: { transaction: transaction.id } });
    }
    transaction[ends]();
  },
  disconnect: () => client.deactivate(),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  orders[order.do](order);
});
client.activate();
