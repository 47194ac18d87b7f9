// How old updates are when the gateway writes them, in the header of a page.

import { age } from "./numbers.js";
import { request } from "./rest.js";
import { token } from "./token.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const FORBIDDEN = [401, 403];
const where = document.getElementById("age");
let timer = null;

async function look() {
  clearTimeout(timer);
  try {
    const response = await request("health", {}, TIMEOUT_MS);
    if (FORBIDDEN.includes(response.status)) {
      show("unknown", "not shown", "not permitted to this client");
      return;  // until there is another token
    }
    const { status, age_ms: milliseconds } = await response.json();
    show(status, milliseconds === null ? "none lately" : `${shown(milliseconds)} old`);
  } catch {
    show("unavailable", "unknown");
  }
  timer = setTimeout(look, EVERY_MS);
}

function show(status, text, why = status) {
  where.dataset.state = status;
  where.title = `/health: ${why}`;
  where.querySelector("dd").textContent = text;
}

function shown(milliseconds) {
  const isShort = milliseconds < 9.95;
  return milliseconds < 999.5 ? `${milliseconds.toFixed(isShort ? 1 : 0)} ms` : age(milliseconds);
}

token.addEventListener("change", look);
look();
