// What rows of feeds look like. Whatever does not is no row, so that nothing which draws has to doubt.

const like = (pattern) => (value) => typeof value === "string" && pattern.test(value);
const orNull = (isValid) => (value) => value === null || isValid(value);
const listOf = (isValid) => (value) => Array.isArray(value) && value.every(isValid);
const rowOf = (fields) => (value) => typeof value === "object" && value !== null
  && Object.entries(fields).every(([name, isValid]) => isValid(value[name]));

const symbol = like(/^.{1,70}$/su);
const text = like(/^.{1,200}$/su);
const price = like(/^-?\d{1,20}(\.\d{1,9})?$/);
const size = like(/^\d{1,40}$/);
const time = (value) => like(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/)(value) && !Number.isNaN(Date.parse(value));
const number = Number.isSafeInteger;
const candle = { open: price, high: price, low: price, close: price, volume: size };
const levels = listOf(rowOf({ price, size, orders: number }));

const FEEDS = Object.fromEntries(Object.entries({
  aggregates: { symbol, ...candle, trades: size, timestamp: time },
  bars: { symbol, ...candle, start: time },
  quotes: { symbol, bid: orNull(price), ask: orNull(price), last: orNull(price), timestamp: time },
  books: { symbol, timestamp: time, bids: levels, asks: levels },
  trades: { symbol, sequence: text, timestamp: time, price, size },
  vwap: { symbol, vwap: orNull(price), timestamp: time },
  alerts: { symbol, id: text, kind: text, severity: text, begin: time, end: orNull(time),
    value: text, baseline: text, score: text, limit: text },
  symbols: { symbol, lot: orNull(price) },
}).map(([name, fields]) => [name, rowOf(fields)]));

export const isRow = (feed, value) => Object.hasOwn(FEEDS, feed) && FEEDS[feed](value);
