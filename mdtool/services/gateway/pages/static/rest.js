// Requests to REST v2.

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

// Returns the answer's {data, next}; raises RestError where it has an error.
export async function get(path, query = {}) {
  const parameters = Object.entries(query).filter(([, value]) => value != null);
  const url = `api/v2/${path}?${new URLSearchParams(parameters)}`;
  let response;
  let answer;
  try {
    response = await fetch(url,
      { signal: AbortSignal.timeout(TIMEOUT_MS), headers: token.headers });
    answer = await response.json();
  } catch {
    throw new RestError("The gateway does not answer.", response?.status ?? 0);
  }
  if (response.status === 401) {
    token.reject();
  }
  if (!response.ok) {
    const retryAfterS = Number(response.headers.get("Retry-After")) || null;
    throw new RestError(answer.error?.message ?? response.statusText, response.status, retryAfterS);
  }
  return answer;
}

// The rows of every page of a list.
export async function getAll(path) {
  const rows = [];
  let cursor = null;
  do {
    const { data, next } = await get(path, { limit: MAX_ROWS, cursor });
    rows.push(...data);
    cursor = next;
  } while (cursor !== null);
  return rows;
}

export const one = (feed, symbol) => `${feed}/${encodeURIComponent(symbol)}`;
