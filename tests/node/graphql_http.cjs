// Audits a server with the graphql-http package, and tells the result of each audit.
//
// node graphql_http.cjs URL

const { serverAudits } = require("graphql-http");

async function run() {
  for (const audit of serverAudits({ url: process.argv[2], fetchFn: fetch })) {
    const { name, status, reason } = await audit.fn();
    console.log(JSON.stringify({ name, status, reason }));
  }
  console.log(JSON.stringify({ done: true }));
}

run();
