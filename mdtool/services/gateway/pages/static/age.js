// How old updates are when the gateway writes them, in the header of a page.

import { age } from "./numbers.js";
import { request } from "./rest.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const where = document.getElementById("age");

async function look() {
  try {
    const response = await request("health", {}, TIMEOUT_MS);
    const { status, age_ms: milliseconds } = await response.json();
    show(status, milliseconds === null ? "none lately" : `${shown(milliseconds)} old`);
  } catch {
    show("unavailable", "unknown");
  }
  setTimeout(look, EVERY_MS);
}

function show(status, text) {
  where.dataset.state = status;
  where.title = `/health: ${status}`;
  where.querySelector("dd").textContent = text;
}

function shown(milliseconds) {
  return milliseconds < 1000 ? `${milliseconds.toPrecision(2)} ms` : age(milliseconds);
}

look();
