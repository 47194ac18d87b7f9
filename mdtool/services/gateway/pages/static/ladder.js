// The levels of an order book as rows of a table: bids to the left, asks to the right.

import { count, padded } from "./numbers.js";

// Levels are {price, size, orders}, best first. Bars in the cells of sizes show each as a part of
// the largest.
export function showLevels(body, bids, asks, decimals) {
  const largest = Math.max(1, ...bids.concat(asks).map(({ size }) => Number(size)));
  const rows = Array.from({ length: Math.max(bids.length, asks.length) }, (_, at) => {
    const [bid, ask] = [bids[at], asks[at]];
    const row = document.createElement("tr");
    const texts = [
      bid?.orders, bid && count(bid.size), bid && padded(bid.price, decimals),
      ask && padded(ask.price, decimals), ask && count(ask.size), ask?.orders,
    ];
    for (const text of texts) {
      row.insertCell().textContent = text ?? "";
    }
    row.cells[1].style.setProperty("--part", Number(bid?.size ?? 0) / largest);
    row.cells[4].style.setProperty("--part", Number(ask?.size ?? 0) / largest);
    return row;
  });
  body.replaceChildren(...rows);
}
