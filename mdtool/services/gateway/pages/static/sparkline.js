// Small lines of the last prices of symbols, and the bars that they begin with.

import { get, one } from "./rest.js";

const BARS = 120;
const BETWEEN_MS = 120;  // requests: fewer than a gateway allows each client
const [WIDTH, HEIGHT] = [100, 24];

export function drawSparkline(svg, points) {
  if (svg.childElementCount === 0) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(document.createElementNS(svg.namespaceURI, "path"));
  }
  const prices = points.map(({ price }) => price);
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  const x = (at) => (at * WIDTH / Math.max(1, prices.length - 1)).toFixed(1);
  const y = (price) => (high === low
    ? HEIGHT / 2 : 1 + (HEIGHT - 2) * (high - price) / (high - low)).toFixed(1);
  const path = prices.length < 2
    ? "" : `M${prices.map((price, at) => `${x(at)},${y(price)}`).join("L")}`;
  svg.firstElementChild.setAttribute("d", path);
  svg.dataset.sign = prices.at(-1) < prices[0] ? "down" : "up";
}

// Reads the past of symbols that are visible, one after the other.
export class Sparklines {
  #market;
  #known = new Set();
  #wanted = [];
  #isReading = false;

  constructor(market) {
    this.#market = market;
  }

  request(symbols) {
    this.#wanted = symbols.filter((symbol) => !this.#known.has(symbol));
    this.#read();
  }

  async #read() {
    if (this.#isReading) {
      return;
    }
    this.#isReading = true;
    while (this.#wanted.length > 0) {
      const symbol = this.#wanted.shift();
      let wait = BETWEEN_MS;
      try {
        const { data } = await get(one("bars", symbol), { interval: "1s", limit: BARS });
        this.#known.add(symbol);
        this.#market.addPast(this.#market.rows.get(symbol), data.reverse());
      } catch (error) {
        if (error.status !== 429) {
          this.#known.add(symbol);  // the line begins now
        }
        wait = 1000 * (error.retryAfterS ?? 0) + BETWEEN_MS;
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    this.#isReading = false;
  }
}
