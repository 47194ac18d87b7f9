// The cumulative depth of an order book: how much there is up to each price, on either side.

const [WIDTH, HEIGHT] = [100, 40];

// Levels are {price, size}, best first; a side may be empty.
export function drawDepth(svg, bids, asks) {
  if (svg.childElementCount === 0) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const side of ["bid", "ask"]) {
      const path = document.createElementNS(svg.namespaceURI, "path");
      path.dataset.side = side;
      svg.append(path);
    }
  }
  const sides = [bids, asks].map((levels) => {
    let total = 0;
    return levels.map(({ price, size }) => ({ price: Number(price), total: total += Number(size) }));
  });
  const levels = sides.flat();
  const prices = levels.map(({ price }) => price);
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  const largest = Math.max(1, ...levels.map(({ total }) => total));
  const x = (price) => (high === low ? WIDTH / 2 : WIDTH * (price - low) / (high - low)).toFixed(2);
  const y = (total) => (HEIGHT - (HEIGHT - 1) * total / largest).toFixed(2);
  sides.forEach((side, at) => {
    const edge = at === 0 ? 0 : WIDTH;
    const steps = side.map(({ total }, level) =>
      `V${y(total)}H${level + 1 < side.length ? x(side[level + 1].price) : edge}`);
    const path = side.length === 0 ? "" : `M${x(side[0].price)},${HEIGHT}${steps.join("")}V${HEIGHT}Z`;
    svg.children[at].setAttribute("d", path);
  });
}
