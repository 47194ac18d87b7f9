// Requests to the gateway, with the token where there is one, and those to REST v2.

import { isRow } from "./rows.js";
import { token } from "./token.js";

const TIMEOUT_MS = 10_000;
const MAX_ROWS = 10_000;

export class RestError extends Error {
  constructor(message, status, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

// As `fetch` does; signing in begins where the gateway requires that.
export async function request(path, options = {}, timeoutMs = TIMEOUT_MS) {
  const response = await fetch(path,
    { signal: AbortSignal.timeout(timeoutMs), headers: token.headers, ...options });
  if (response.status === 401) {
    token.reject();
  }
  return response;
}

// Returns the {data, next} of a feed, with those of its rows that are some; raises RestError where
// the answer has an error, or is none of a gateway.
export async function get(path, query = {}) {
  const parameters = Object.entries(query).filter(([, value]) => value != null);
  const url = `api/v2/${path}?${new URLSearchParams(parameters)}`;
  let response;
  let answer;
  try {
    response = await request(url);
    answer = await response.json();
  } catch {
    throw new RestError("The gateway does not answer.", response?.status ?? 0);
  }
  if (!response.ok) {
    const retryAfterS = Number(response.headers.get("Retry-After")) || null;
    throw new RestError(answer?.error?.message ?? response.statusText, response.status, retryAfterS);
  }
  const feed = path.split("/")[0];
  if (!Array.isArray(answer?.data)) {
    throw new RestError("Another program answers in place of the gateway.", response.status);
  }
  return { data: answer.data.filter((row) => isRow(feed, row)), next: answer.next ?? null };
}

// The rows of every page of a list.
export async function getAll(path) {
  const rows = [];
  let page = { next: null };
  do {
    page = await get(path, { limit: MAX_ROWS, cursor: page.next });
    rows.push(...page.data);
  } while (page.next !== null && page.data.length > 0);
  return rows;
}

export const one = (feed, symbol) => `${feed}/${encodeURIComponent(symbol)}`;
