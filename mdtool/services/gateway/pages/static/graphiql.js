// A page for operations, GraphiQL or a plain one, with the token where the gateway requires one.

import "./sign-in.js";  // first: the user may have come back from the issuer

import { request } from "./rest.js";
import { token } from "./token.js";

const UNAUTHORIZED = 4401;

const QUERY = `# What the market is now. Ctrl-Enter runs the operation at the cursor.
query Now {
  marketData(symbol: "AAPL") {
    symbol
    open
    high
    low
    close
    volume
    timestamp
  }
}

# What it becomes, until it is stopped.
subscription FromNowOn {
  marketData(symbol: "AAPL") {
    close
    volume
  }
}
`;

function show(element) {
  const socket = new URL("graphql", document.baseURI);
  socket.protocol = socket.protocol.replace("http", "ws");
  const fetcher = GraphiQL.createFetcher({
    url: "graphql",
    fetch: (url, options) =>
      request(url, { ...options, headers: { ...options.headers, ...token.headers } }),
    wsClient: graphqlWs.createClient({
      url: socket.href,
      connectionParams: () => token.headers,
      on: { closed: ({ code }) => code === UNAUTHORIZED && token.reject() },
    }),
  });
  const page = React.createElement(GraphiQL, { fetcher, defaultQuery: QUERY });
  ReactDOM.createRoot(element).render(page);
}

// A box for a query and one for its result: what works without GraphiQL.
function showPlain(element) {
  element.firstElementChild.textContent =
    "GraphiQL could not be loaded. It comes from a CDN, unless mdtool gateway --assets names a " +
    "folder node_modules that has it. Queries work here all the same; Ctrl-Enter runs one.";
  const form = document.createElement("form");
  const query = document.createElement("textarea");
  const run = document.createElement("button");
  const result = document.createElement("pre");
  query.value = QUERY.slice(0, QUERY.indexOf("\n\n"));
  query.spellcheck = false;
  query.setAttribute("aria-label", "query");
  run.textContent = "Run";
  form.append(query, run, result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await request("graphql", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...token.headers },
      body: JSON.stringify({ query: query.value }),
    }).catch(() => null);
    const text = await response?.text();
    try {
      result.textContent = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      result.textContent = text ?? "The gateway does not answer.";
    }
  });
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      form.requestSubmit();
    }
  });
  element.append(form);
}

const element = document.getElementById("graphiql");
if (window.GraphiQL && window.ReactDOM && window.graphqlWs) {
  show(element);
} else {
  showPlain(element);
}
