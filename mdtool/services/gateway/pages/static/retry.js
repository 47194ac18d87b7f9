// When to try again what failed: exponential, and jittered, so that not all pages return at once to
// a gateway that restarts; at once where the network returns, or the tab is looked at again.

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 30_000;

export class Retry {
  #act;
  #attempts = 0;
  #timer = null;

  constructor(act) {
    this.#act = act;
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => this.#hurry());
  }

  // Acts after a while, whose milliseconds it returns.
  later() {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** ++this.#attempts);
    const delay = FIRST_DELAY_MS + Math.random() * (longest - FIRST_DELAY_MS);
    this.#timer = setTimeout(() => this.#run(), delay);
    return delay;
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  // The next failure is a first one.
  reset() {
    this.#attempts = 0;
  }

  #hurry() {
    if (this.#timer !== null && !document.hidden) {
      this.#run();
    }
  }

  #run() {
    this.cancel();
    this.#act();
  }
}
