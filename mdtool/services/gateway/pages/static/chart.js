// Candles with volume and VWAP, drawn by TradingView's lightweight-charts. The page names its file
// in a template; it is loaded when a chart is first shown, so that nothing waits for it.

import { decimalsOf } from "./numbers.js";
import { paced } from "./paced.js";
import { get, one } from "./rest.js";

const PAGE = 500;
const MAX_BARS = 20_000;  // that are kept, five and a half hours of seconds
const NEAR = 50;  // bars before the left edge at which older ones are read

let loading = null;

function library(template) {
  loading ??= new Promise((resolve, reject) => {
    const named = template.content.querySelector("script");
    const script = document.createElement("script");
    for (const { name, value } of named.attributes) {
      script.setAttribute(name, value);
    }
    script.addEventListener("load", () => resolve(globalThis.LightweightCharts));
    script.addEventListener("error", () => {
      loading = null;
      script.remove();
      reject(new Error(`No chart: ${new URL(script.src).host} cannot be reached. A gateway with `
        + "--assets node_modules serves the chart's library itself."));
    });
    document.head.append(script);
  });
  return loading;
}

const NAMES_APART = 8;  // bars between alerts that are named
const SECONDS = { "1s": 1, "1m": 60, "5m": 300, "1h": 3600, "1d": 86_400 };
const startOf = (bar) => Date.parse(bar.start) / 1000;

export class Chart {
  #place;
  #message;
  #template;
  #connection;
  #charts = null;   // the library
  #chart = null;
  #series = {};
  #bars = new Map();   // by start, in seconds
  #vwaps = new Map();
  #alerts = [];
  #marks = null;
  #shown = null;    // {symbol, interval}
  #newest = 0;      // start, in seconds
  #changed = new Set();  // starts of bars that are not drawn yet
  #draw = paced(() => this.#paint());
  #colors = {};
  #lot = 1;         // what one unit of volume is
  #hasOlder = false;  // whether there may be bars before those that are known
  #isReading = false;
  #generation = 0;
  #end = () => {};

  // `message` is where to say why there is no chart.
  constructor(place, message, template, connection) {
    this.#place = place;
    this.#message = message;
    this.#template = template;
    this.#connection = connection;
    connection.addEventListener("change", () => {
      // What the page missed while it was disconnected is history.
      const isNew = connection.isConnected && connection.generation !== this.#generation;
      if (isNew && this.#chart !== null) {
        this.#read(this.#shown);
      }
    });
    for (const query of ["(prefers-color-scheme: light)", "(min-width: 2400px)"]) {
      matchMedia(query).addEventListener("change", () => this.#dress());
    }
  }

  async show(symbol, interval) {
    this.close();
    const shown = this.#shown = { symbol, interval };
    this.#place.setAttribute("aria-label", `Candles of ${symbol}, ${interval}`);
    try {
      this.#charts = await library(this.#template);
    } catch (error) {
      this.#say(error.message);
      return;
    }
    if (this.#shown !== shown) {
      return;
    }
    this.#say("");
    this.#make(interval);
    this.#end = this.#connection.subscribe({ channel: "bars", symbols: [symbol], interval },
      ({ data }) => data && this.#take(data));
    await this.#read(shown);
  }

  // Takes what one unit of volume is, a decimal string, null for 1.
  scale(lot) {
    const isOther = this.#lot !== Number(lot ?? 1);
    this.#lot = Number(lot ?? 1);
    if (isOther && this.#chart !== null) {
      this.#setAll();
    }
  }

  close() {
    this.#end();
    this.#end = () => {};
    this.#chart?.remove();
    this.#chart = this.#shown = this.#marks = null;
    this.#hasOlder = false;
    this.#alerts = [];
    this.#newest = 0;
    this.#changed.clear();
    this.#bars.clear();
    this.#vwaps.clear();
  }

  // Takes a VWAP as the newest bar's.
  addVwap(vwap) {
    const [time, value] = [this.#newest, Number(vwap?.vwap ?? NaN)];
    if (time === 0 || Number.isNaN(value) || vwap.stale || this.#vwaps.get(time) === value) {
      return;
    }
    this.#vwaps.set(time, value);
    this.#series.vwap.update({ time, value });
  }

  // Marks the bars in which alerts began.
  mark(alerts) {
    this.#alerts = alerts;
    this.#setMarks();
  }

  #make(interval) {
    const { createChart, createSeriesMarkers, CandlestickSeries, HistogramSeries, LineSeries } =
      this.#charts;
    this.#chart = createChart(this.#place, {
      autoSize: true,
      // Its logo brings a style element, which the page's policy rejects; a link replaces it.
      layout: { attributionLogo: false },
      timeScale: { timeVisible: interval !== "1d", secondsVisible: interval === "1s",
        barSpacing: 9, rightOffset: 3 },
    });
    this.#series = {
      candles: this.#chart.addSeries(CandlestickSeries),
      volume: this.#chart.addSeries(HistogramSeries, {
        priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false,
        priceLineVisible: false,
      }),
      vwap: this.#chart.addSeries(LineSeries, { lineWidth: 1, priceLineVisible: false,
        crosshairMarkerVisible: false }),
    };
    this.#marks = createSeriesMarkers(this.#series.candles, []);
    this.#series.volume.priceScale().applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range !== null && range.from < NEAR && this.#hasOlder) {
        this.#readOlder(this.#shown);
      }
    });
    this.#dress();
  }

  #dress() {
    if (this.#chart === null) {
      return;
    }
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const [up, down, line] = [color("bid"), color("ask"), color("line")];
    this.#colors = { up: color("bid-bar"), down: color("ask-bar") };
    this.#chart.applyOptions({
      layout: { background: { color: color("card") }, textColor: color("muted"),
        fontFamily: style.fontFamily },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      rightPriceScale: { borderColor: line },
      timeScale: { borderColor: line },
    });
    this.#series.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up,
      wickDownColor: down, borderVisible: false });
    this.#series.vwap.applyOptions({ color: color("warn") });
    this.#setAll();
  }

  // Reads the newest bars; after a lost connection, back to those that are known.
  async #read(shown) {
    this.#generation = this.#connection.generation;
    const known = this.#newest;
    let page = { next: null };
    do {
      page = await this.#page(shown, { cursor: page.next });
      if (page === null) {
        return;
      }
      this.#hasOlder ||= page.next !== null;
      page.data.forEach((bar) => this.#keep(bar));
    } while (known !== 0 && page.next !== null && page.data.length > 0
      && startOf(page.data.at(-1)) > known);
    this.#say("");
    this.#setAll();
  }

  async #readOlder(shown) {
    if (this.#isReading) {
      return;
    }
    this.#isReading = true;
    const oldest = Math.min(...this.#bars.keys());
    const page = await this.#page(shown, { to: new Date(oldest * 1000).toISOString() });
    if (page !== null) {
      this.#hasOlder = page.next !== null && this.#bars.size < MAX_BARS;
      page.data.forEach((bar) => this.#keep(bar));
      this.#setAll();
    }
    this.#isReading = false;
  }

  // The page of bars; null where it is not wanted any more, or cannot be read.
  async #page(shown, place) {
    try {
      const query = { interval: shown.interval, limit: PAGE, ...place };
      const page = await get(one("bars", shown.symbol), query);
      return this.#shown === shown && this.#chart !== null ? page : null;
    } catch (error) {
      if (this.#shown === shown) {
        this.#say(`Bars: ${error.message}`);
      }
      return null;
    }
  }

  #take(bar) {
    const isOld = startOf(bar) < this.#newest;
    const isNew = startOf(bar) > this.#newest;
    const time = this.#keep(bar);
    if (isOld) {
      this.#setAll();
    } else {
      this.#changed.add(time);
      this.#draw();
      if (this.#bars.size > MAX_BARS + PAGE) {
        this.#setAll();
      } else if (isNew) {
        this.#setMarks();  // its alert may have come before it
      }
    }
  }

  #paint() {
    for (const time of this.#changed) {
      const bar = this.#bars.get(time);
      this.#series.candles.update(this.#candle(bar, time));
      this.#series.volume.update(this.#volume(bar, time));
    }
    this.#changed.clear();
  }

  #keep(bar) {
    const time = startOf(bar);
    this.#bars.set(time, bar);
    this.#newest = Math.max(this.#newest, time);
    return time;
  }

  #setAll() {
    this.#changed.clear();
    const bars = [...this.#bars].sort(([first], [second]) => first - second);
    for (const [time] of bars.splice(0, bars.length - MAX_BARS)) {
      this.#bars.delete(time);
      this.#vwaps.delete(time);
      this.#hasOlder = false;  // they would be removed again
    }
    const decimals = Math.max(2, decimalsOf(bars.slice(-PAGE).map(([, { close }]) => close)));
    this.#series.candles.applyOptions({
      priceFormat: { type: "price", precision: decimals, minMove: 10 ** -decimals },
    });
    this.#series.candles.setData(bars.map(([time, bar]) => this.#candle(bar, time)));
    this.#series.volume.setData(bars.map(([time, bar]) => this.#volume(bar, time)));
    this.#series.vwap.setData([...this.#vwaps].map(([time, value]) => ({ time, value })));
    this.#setMarks();
  }

  #setMarks() {
    if (this.#marks === null) {
      return;
    }
    const length = SECONDS[this.#shown.interval];
    const kinds = new Map();  // by start, in seconds
    for (const { begin, kind } of this.#alerts) {
      const time = Math.floor(Date.parse(begin) / 1000 / length) * length;
      if (this.#bars.has(time)) {
        kinds.set(time, new Set([...kinds.get(time) ?? [], kind]));
      }
    }
    const color = getComputedStyle(document.documentElement).getPropertyValue("--warn").trim();
    let named = 0;
    this.#marks.setMarkers([...kinds].sort(([first], [second]) => first - second)
      .map(([time, names]) => {
        const hasRoom = time - named >= NAMES_APART * length;
        named = hasRoom ? time : named;
        return { time, color, position: "aboveBar", shape: "arrowDown",
          text: hasRoom ? [...names].join(", ") : "" };
      }));
    this.#place.dataset.marks = kinds.size;
  }

  #candle({ open, high, low, close }, time) {
    return { time, open: Number(open), high: Number(high), low: Number(low), close: Number(close) };
  }

  #volume({ open, close, volume }, time) {
    const { up, down } = this.#colors;
    return { time, value: Number(volume) * this.#lot, color: Number(close) < Number(open) ? down : up };
  }

  #say(text) {
    this.#message.textContent = text;
    this.#message.hidden = text === "";
  }
}
