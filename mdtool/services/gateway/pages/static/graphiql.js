"use strict";

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
    wsClient: graphqlWs.createClient({ url: socket.href }),
  });
  const page = React.createElement(GraphiQL, { fetcher, defaultQuery: QUERY });
  ReactDOM.createRoot(element).render(page);
}

const element = document.getElementById("graphiql");
if (window.GraphiQL && window.ReactDOM && window.graphqlWs) {
  show(element);
} else {
  element.firstElementChild.textContent =
    "GraphiQL could not be loaded. It comes from a CDN, unless mdtool gateway --assets names a " +
    "folder node_modules that has it. Queries are answered all the same, at POST /graphql.";
}
