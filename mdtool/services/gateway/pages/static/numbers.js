// How the pages write numbers. Prices are decimal strings, which are never turned into doubles to
// be shown.

export const ABSENT = "—";
const WHOLE = new Intl.NumberFormat("en-US");

// A number, or digits of any length, with separators.
export const count = (number) => (number == null ? null : WHOLE.format(number));

// A size, digits of any length, times the lot of its symbol, a decimal string, null for 1.
export function amount(size, lot) {
  if (size == null || lot == null) {
    return count(size);
  }
  const decimals = decimalsOf([lot]);
  const units = BigInt(size) * BigInt(lot.replace(".", ""));
  const scale = 10n ** BigInt(decimals);
  const fraction = String(units % scale).padStart(decimals, "0").replace(/0+$/, "");
  return WHOLE.format(units / scale) + (decimals && fraction ? `.${fraction}` : "");
}

// A decimal string with zeros up to so many decimals.
export function padded(price, decimals) {
  const [units, fraction = ""] = price.split(".");
  return decimals ? `${units}.${fraction.padEnd(decimals, "0")}` : units;
}

// The most decimals that any of some prices has.
export function decimalsOf(prices) {
  return Math.max(0, ...prices.map((price) => (price?.split(".")[1] ?? "").length));
}

// The difference of two values as a part of the second, null where there is none.
export function relative(value, base) {
  const part = (Number(value) - Number(base)) / Math.abs(Number(base));
  return value == null || base == null || !Number.isFinite(part) ? null : part;
}

export function percent(part) {
  if (part === null) {
    return ABSENT;
  }
  const text = Math.abs(100 * part).toFixed(2);
  const sign = Number(text) === 0 ? "" : part < 0 ? "−" : "+";
  return `${sign}${text} %`;
}

// Which way a percentage goes, as it is shown.
export const signOf = (text) => ({ "+": "up", "−": "down" })[text[0]] ?? "";

// How long ago something was, short.
export function age(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 1) {
    return "< 1 s";
  }
  const [unit, size] = [["d", 86_400], ["h", 3600], ["min", 60]]
    .find(([, length]) => seconds >= length) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit}`;
}

// The time of day of an RFC 3339 string, to the millisecond.
export const timeOfDay = (timestamp) => timestamp.slice(11, 23);
