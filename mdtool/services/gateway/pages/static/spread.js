// Bid and ask over the time that the page has watched a symbol: two lines, the spread between them.

import { ABSENT } from "./numbers.js";

const SAMPLE_MS = 1000;
const MAX_SAMPLES = 300;

export class Spread {
  #canvas;
  #value;
  #samples = [];  // {bid, ask}, one a second; null where a side is missing or the quote is stale

  // `value` is where the spread is written.
  constructor(canvas, value) {
    this.#canvas = canvas;
    this.#value = value;
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  clear() {
    this.#samples = [];
    this.#value.textContent = ABSENT;
    this.#draw();
  }

  // Takes what the quote of a row is now, at most once a second into the lines.
  sample({ quote, decimals }, isLive, now = performance.now()) {
    const isWhole = isLive && quote.bid !== null && quote.ask !== null;
    const sides = isWhole ? { bid: Number(quote.bid), ask: Number(quote.ask) } : null;
    this.#value.textContent = sides ? (sides.ask - sides.bid).toFixed(decimals) : ABSENT;
    const second = Math.floor(now / SAMPLE_MS);
    if (this.#samples.at(-1)?.second === second) {
      this.#samples.at(-1).sides = sides;
    } else {
      this.#samples.push({ second, sides });
      this.#samples.splice(0, this.#samples.length - MAX_SAMPLES);
    }
    this.#draw();
  }

  #draw() {
    const canvas = this.#canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const scale = devicePixelRatio;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const known = this.#samples.filter(({ sides }) => sides !== null);
    if (known.length === 0 || width === 0) {
      return;
    }
    const style = getComputedStyle(canvas);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.lineWidth = 1.5;
    const prices = known.flatMap(({ sides }) => [sides.bid, sides.ask]);
    const [low, high] = [Math.min(...prices), Math.max(...prices)];
    const newest = this.#samples.at(-1).second;
    const span = Math.max(60, newest - this.#samples[0].second);
    const x = (second) => width * (1 - (newest - second) / span);
    const y = (price) => 4 + (height - 8) * (high === low ? 0.5 : (high - price) / (high - low));
    for (const side of ["bid", "ask"]) {
      pen.strokeStyle = style.getPropertyValue(`--${side}`);
      pen.beginPath();
      let before = null;
      for (const { second, sides } of this.#samples) {
        if (sides === null) {
          before = null;
          continue;
        }
        if (before === null) {
          pen.moveTo(x(second), y(sides[side]));
        } else {
          pen.lineTo(x(second), y(before));
          pen.lineTo(x(second), y(sides[side]));
        }
        before = sides[side];
      }
      pen.stroke();
    }
  }
}
