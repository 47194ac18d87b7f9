// Runs operations with the graphql-ws client, one after the other as it is told to on its input,
// and tells what comes of each. Lost connections are opened again.
//
// node graphql_ws.cjs URL, with a token in MDTOOL_TOKEN or none
// {"do": "subscribe", "id": "a", "query": "...", "variables": {...}}   {"do": "complete", "id": "a"}

const readline = require("node:readline");
const { createClient } = require("graphql-ws");
const WebSocket = require("ws");

const tell = (event) => console.log(JSON.stringify(event));
const client = createClient({
  url: process.argv[2],
  webSocketImpl: WebSocket,
  connectionParams: process.env.MDTOOL_TOKEN ? { token: process.env.MDTOOL_TOKEN } : undefined,
  retryAttempts: 1000,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 20)),
  shouldRetry: () => true,
  on: { closed: ({ code }) => tell({ closed: code }) },
});
const ends = {};

function obey({ do: what, id, ...payload }) {
  if (what === "complete") {
    ends[id]();
    return;
  }
  ends[id] = client.subscribe(payload, {
    next: (result) => tell({ id, result }),
    error: (errors) => tell({ id, errors }),
    complete: () => tell({ id, complete: true }),
  });
}

readline.createInterface({ input: process.stdin }).on("line", (line) => obey(JSON.parse(line)));
