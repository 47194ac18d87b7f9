// How old updates are when the gateway writes them, in the header of a page.

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const where = document.getElementById("age");

async function look() {
  try {
    const response = await fetch("health", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const { status, age_ms: age } = await response.json();
    show(status, age === null ? "none lately" : `${shown(age)} old`);
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

function shown(age) {
  return age < 1000 ? `${age.toPrecision(2)} ms` : `${(age / 1000).toFixed(1)} s`;
}

look();
