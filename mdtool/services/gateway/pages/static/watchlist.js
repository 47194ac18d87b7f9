// The table of symbols. Only the rows that are visible exist, and only they are followed.

import { ABSENT, age, amount, padded, percent, relative, signOf } from "./numbers.js";
import { paced } from "./paced.js";
import { Sparklines, drawSparkline } from "./sparkline.js";
import { store, stored } from "./storage.js";

const ROW_PX = 34;
const SPARE_ROWS = 6;        // above and below what is visible
const FOLLOW_AFTER_MS = 120;  // of standing still
const ORDER_MS = 1000;
const AGE_MS = 1000;
const FLASH_MS = 400;
const STARS = "watchlist";  // in the browser's storage

const change = ({ session }) => relative(session?.close, session?.open);
const distance = ({ session, vwap }) => relative(session?.close, vwap?.vwap);
const shown = (price, row) => (price == null ? ABSENT : padded(price, row.decimals));

// `value` is what a column is sorted by, null where there is none; `text` is what it shows.
export const COLUMNS = [
  { name: "symbol", value: (row) => row.symbol, text: (row) => row.symbol },
  { name: "last", value: (row) => Number(row.session?.close ?? NaN),
    text: (row) => shown(row.session?.close, row) },
  { name: "bid", value: (row) => Number(row.quote?.bid ?? NaN),
    text: (row) => shown(row.quote?.bid, row), isOfQuote: true },
  { name: "ask", value: (row) => Number(row.quote?.ask ?? NaN),
    text: (row) => shown(row.quote?.ask, row), isOfQuote: true },
  { name: "change", value: (row) => change(row) ?? NaN, text: (row) => percent(change(row)),
    isSigned: true },
  { name: "volume", value: (row) => Number(row.session?.volume ?? NaN) * (row.lot ?? 1),
    text: (row) => amount(row.session?.volume, row.lot) ?? ABSENT },
  { name: "vwap", value: (row) => Number(row.vwap?.vwap ?? NaN),
    text: (row) => (row.vwap?.vwap == null
      ? ABSENT : Number(row.vwap.vwap).toFixed(row.decimals + 1)) },
  { name: "distance", value: (row) => distance(row) ?? NaN, text: (row) => percent(distance(row)),
    isSigned: true },
  { name: "age", value: (row) => -row.tradedAt,
    text: (row) => age(performance.now() - row.tradedAt) },
];

// Events: "choose", with the symbol in `detail`; "layout", when sort, search or list change;
// "paint", with the time of the newest trade that has come to the screen.
export class Watchlist extends EventTarget {
  selected = null;
  sort = "symbol";    // a column; with - before it the largest first
  search = "";
  isStarred = false;  // whether only starred symbols are listed

  #market;
  #sparklines;
  #grid;
  #body;
  #stars = new Set(readStars());
  #order = [];
  #rows = new Map();  // of the table, by symbol
  #changed = new Set();
  #extra = null;      // followed whether visible or not
  #isOrderOld = true;
  #draw = paced(() => this.#paint());
  #visible = "";
  #following = null;

  // `grid` scrolls; it has a header with a cell a column, and a body.
  constructor(grid, market) {
    super();
    this.#grid = grid;
    this.#body = grid.querySelector(".body");
    this.#market = market;
    this.#sparklines = new Sparklines(market);
    for (const heading of grid.querySelectorAll("[data-column]")) {
      heading.querySelector("button").addEventListener("click", () => {
        const { column } = heading.dataset;
        const isText = column === "symbol";
        const [first, second] = isText ? [column, `-${column}`] : [`-${column}`, column];
        this.arrange({ sort: this.sort === first ? second : first });
      });
    }
    grid.addEventListener("scroll", () => requestAnimationFrame(() => this.#paint()));
    grid.addEventListener("keydown", (event) => this.#press(event));
    grid.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#draw()).observe(grid);
    market.listen((row) => this.#receive(row));
    setInterval(() => this.#reorder(), ORDER_MS);
    setInterval(() => this.#rows.forEach((line) => this.#writeAge(line)), AGE_MS);
  }

  get first() {
    return this.#order[0]?.symbol ?? null;
  }

  get length() {
    return this.#order.length;
  }

  // Changes what is listed, and how.
  arrange({ sort = this.sort, search = this.search, isStarred = this.isStarred }) {
    const name = sort.replace(/^-/, "");
    this.sort = COLUMNS.some((column) => column.name === name) ? sort : "symbol";
    this.search = search;
    this.isStarred = isStarred;
    this.#isOrderOld = true;
    this.#reorder();
    this.dispatchEvent(new Event("layout"));
  }

  // Follows a symbol, whether it is visible or not, and marks its row.
  select(symbol) {
    this.selected = this.#extra = symbol;
    this.#draw();
  }

  // Moves the selection by a number of rows.
  move(by) {
    if (this.#order.length === 0) {
      return;
    }
    const now = this.#order.findIndex(({ symbol }) => symbol === this.selected);
    const to = now < 0 ? 0 : Math.min(this.#order.length - 1, Math.max(0, now + by));
    this.#show(to);
    this.#choose(this.#order[to].symbol, false);
  }

  star(symbol) {
    if (!this.#stars.delete(symbol)) {
      this.#stars.add(symbol);
    }
    store("localStorage", STARS, [...this.#stars]);
    this.#isOrderOld = this.isStarred;
    this.#reorder();
    this.#drawAll();
  }

  #choose(symbol, isOpened) {
    this.select(symbol);
    this.dispatchEvent(new CustomEvent("choose", { detail: { symbol, isOpened } }));
  }

  #press(event) {
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / ROW_PX) - 2);
    const steps = { PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      this.move(steps[event.key]);
    } else if (event.key === "Enter" && event.target === this.#grid && this.selected !== null) {
      this.#choose(this.selected, true);
    }
  }

  #click(event) {
    const symbol = event.target.closest(".row")?.dataset.symbol;
    if (symbol === undefined) {
      return;
    }
    if (event.target.closest(".star")) {
      this.star(symbol);
    } else {
      this.#choose(symbol, true);
    }
  }

  #show(at) {
    const grid = this.#grid;
    const top = at * ROW_PX;
    const visible = grid.clientHeight - ROW_PX;  // the header covers one row
    if (top < grid.scrollTop) {
      grid.scrollTop = top;
    } else if (top + ROW_PX > grid.scrollTop + visible) {
      grid.scrollTop = top + ROW_PX - visible;
    }
  }

  #receive(row) {
    if (row === null) {
      this.#isOrderOld = true;
      this.#reorder();
      this.#drawAll();
      return;
    }
    if (!this.#rows.has(row.symbol)) {
      this.#isOrderOld = true;
      return;
    }
    this.#isOrderOld ||= this.sort !== "symbol" && this.sort !== "-symbol";
    this.#changed.add(row.symbol);
    this.#draw();
  }

  #reorder() {
    if (!this.#isOrderOld) {
      return;
    }
    this.#isOrderOld = false;
    const name = this.sort.replace(/^-/, "");
    const { value } = COLUMNS.find((column) => column.name === name);
    const sign = this.sort.startsWith("-") ? -1 : 1;
    const search = this.search.trim().toUpperCase();
    const keyed = [...this.#market.rows.values()]
      .filter(({ symbol }) => symbol.toUpperCase().includes(search)
        && (!this.isStarred || this.#stars.has(symbol)))
      .map((row) => [value(row), row]);
    keyed.sort(([a, { symbol: one }], [b, { symbol: other }]) =>
      Number(Number.isNaN(a)) - Number(Number.isNaN(b))
      || (a < b ? -sign : a > b ? sign : 0) || (one < other ? -1 : 1));
    this.#order = keyed.map(([, row]) => row);
    this.#draw();
  }

  #drawAll() {
    this.#rows.forEach((_, symbol) => this.#changed.add(symbol));
    this.#draw();
  }

  #paint() {
    const { scrollTop, clientHeight } = this.#grid;
    const first = Math.max(0, Math.floor(scrollTop / ROW_PX) - SPARE_ROWS);
    const last = Math.ceil((scrollTop + clientHeight) / ROW_PX) + SPARE_ROWS;
    const visible = this.#order.slice(first, last);
    const names = new Set(visible.map(({ symbol }) => symbol));
    for (const [symbol, line] of this.#rows) {
      if (!names.has(symbol)) {
        line.element.remove();
        this.#rows.delete(symbol);
      }
    }
    this.#body.style.height = `${this.#order.length * ROW_PX}px`;
    this.#grid.setAttribute("aria-rowcount", this.#order.length + 1);
    visible.forEach((row, index) => {
      let line = this.#rows.get(row.symbol);
      if (line?.row !== row) {
        line?.element.remove();
        line = makeLine(row);
        this.#rows.set(row.symbol, line);
        this.#changed.add(row.symbol);
        this.#body.append(line.element);
      }
      line.element.style.transform = `translateY(${(first + index) * ROW_PX}px)`;
      line.element.setAttribute("aria-rowindex", first + index + 2);
      line.element.setAttribute("aria-selected", row.symbol === this.selected);
    });
    let newest = -Infinity;
    for (const line of [...this.#changed].map((each) => this.#rows.get(each)).filter(Boolean)) {
      this.#write(line);
      newest = Math.max(newest, Date.parse(line.row.session?.timestamp) || -Infinity);
    }
    this.#changed.clear();
    this.dispatchEvent(new CustomEvent("paint", { detail: newest }));
    this.#writeHeader();
    const selected = this.#rows.get(this.selected);
    if (selected) {
      this.#grid.setAttribute("aria-activedescendant", selected.element.id);
    } else {
      this.#grid.removeAttribute("aria-activedescendant");
    }
    const visibleNow = [this.#extra, ...names].join("\n");
    if (visibleNow !== this.#visible) {
      const delay = this.#visible === "" ? 0 : FOLLOW_AFTER_MS;
      this.#visible = visibleNow;
      clearTimeout(this.#following);
      this.#following = setTimeout(() => this.#follow([...names]), delay);
    }
  }

  #follow(symbols) {
    this.#market.follow(this.#extra === null ? symbols : [this.#extra, ...symbols]);
    this.#sparklines.request(symbols);
  }

  #write(line) {
    const { row, element, cells, star, spark, texts } = line;
    const isLive = this.#market.isLive(row);
    element.classList.toggle("stale", !isLive);
    for (const column of COLUMNS) {
      const cell = cells[column.name];
      const text = column.text(row);
      const before = texts[column.name];
      if (column.isOfQuote) {
        cell.classList.toggle("stale", isLive && !this.#market.isQuoteLive(row));
      }
      if (text === before) {
        continue;
      }
      texts[column.name] = text;
      cell.textContent = text;
      if (column.isSigned) {
        cell.dataset.sign = signOf(text);
      }
    }
    const price = Number(row.session?.close ?? NaN);
    if (isLive && price !== line.price) {
      flash(cells.last, price - line.price);
    }
    line.price = price;
    const isStarred = this.#stars.has(row.symbol);
    star.setAttribute("aria-pressed", isStarred);
    star.textContent = isStarred ? "★" : "☆";
    drawSparkline(spark, row.points);
  }

  #writeAge({ row, cells, texts }) {
    cells.age.textContent = texts.age = age(performance.now() - row.tradedAt);
  }

  #writeHeader() {
    for (const heading of this.#grid.querySelectorAll("[data-column]")) {
      const { column } = heading.dataset;
      const direction = this.sort === column ? "ascending"
        : this.sort === `-${column}` ? "descending" : "none";
      heading.setAttribute("aria-sort", direction);
    }
  }
}

let lines = 0;

function makeLine(row) {
  const element = document.createElement("div");
  element.className = "row";
  element.role = "row";
  element.id = `row-${++lines}`;
  element.dataset.symbol = row.symbol;
  const star = document.createElement("button");
  star.type = "button";
  star.className = "star";
  star.tabIndex = -1;  // the table is one stop of the keyboard; w does the same
  star.setAttribute("aria-label", "star");
  const spark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  spark.setAttribute("aria-hidden", "true");
  const cells = Object.fromEntries(COLUMNS.map(({ name }) => {
    const text = document.createElement("bdi");  // a symbol may turn the direction of its line
    element.append(cell(name, text));
    return [name, text];
  }));
  cells.symbol.title = row.symbol;
  element.prepend(cell("star-cell", star));
  element.append(cell("spark", spark));
  return { row, element, cells, star, spark, texts: {}, price: NaN };
}

function cell(name, content) {
  const element = document.createElement("div");
  element.role = "gridcell";
  element.className = name;
  element.append(content);
  return element;
}

const isStill = matchMedia("(prefers-reduced-motion: reduce)");

function flash(text, difference) {
  if (!isStill.matches && difference) {
    const { classList } = text.parentElement;
    const name = difference > 0 ? "rise" : "fall";
    classList.remove("rise", "fall");
    classList.add(name);
    setTimeout(() => classList.remove(name), FLASH_MS);
  }
}

function readStars() {
  const stars = stored("localStorage", STARS);
  return Array.isArray(stars) ? stars.filter((each) => typeof each === "string") : [];
}
