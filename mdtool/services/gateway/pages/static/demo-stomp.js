// The test page of STOMP: follow topics, see the latest of each, and send.

import "./sign-in.js";  // first: the user may have come back from the issuer

import { Stomp } from "./stomp.js";

const MOST_LOG_LINES = 100;
const $ = (id) => document.getElementById(id);
const stomp = new Stomp();
const rows = new Map();

function log(text, kind = "") {
  const line = document.createElement("li");
  line.textContent = `${new Date().toLocaleTimeString()} ${text}`;
  line.className = kind;
  $("log").prepend(line);
  while ($("log").childElementCount > MOST_LOG_LINES) $("log").lastElementChild.remove();
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").querySelector("dd").textContent = text;
}

function tell(destination, content) {
  let row = rows.get(destination);
  if (row === undefined) {
    const cells = $("topics").insertRow();
    cells.dataset.destination = destination;
    row = { name: cells.insertCell(), latest: cells.insertCell(), count: cells.insertCell() };
    row.name.textContent = destination;
    row.count.className = "count";
    rows.set(destination, row);
  }
  row.latest.textContent = JSON.stringify(content);
  row.count.textContent = String(Number(row.count.textContent) + 1);
}

function follow(destination) {
  const end = stomp.subscribe(destination, tell);
  const row = $("subscriptions").insertRow();
  row.insertCell().textContent = destination;
  const button = document.createElement("button");
  button.className = "quiet";
  button.textContent = "end";
  button.onclick = () => {
    end();
    row.remove();
    log(`unsubscribed ${destination}`);
  };
  row.insertCell().append(button);
  log(`subscribed ${destination}`);
}

$("follow").onsubmit = (event) => {
  event.preventDefault();
  follow($("destination").value);
};

$("send").onsubmit = (event) => {
  event.preventDefault();
  try {
    stomp.send($("to").value, JSON.parse($("body").value));
    log(`sent to ${$("to").value}`);
  } catch (error) {
    log(`not sent: ${error.message}`, "error");
  }
};

stomp.addEventListener("connected", () => {
  show("connected", "connected");
  log("connected");
});
stomp.addEventListener("lost", ({ detail }) => {
  show("lost", "reconnecting");
  log(`lost: ${detail}`, "error");
});
stomp.addEventListener("refused", ({ detail }) => log(detail, "error"));
stomp.open();
