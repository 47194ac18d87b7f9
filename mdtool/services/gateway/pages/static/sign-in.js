// Signs in where the gateway requires a token: at its issuer, by the authorization code flow with
// PKCE, or by a token that is pasted.

import { store, stored } from "./storage.js";
import { token } from "./token.js";

const PENDING = "sign-in";  // until the user comes back: the secret, and where it began
const RANDOM_BYTES = 32;

const encoded = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replace(/[+]/g, "-").replace(/[/]/g, "_").replace(/=+$/, "");
const random = () => encoded(crypto.getRandomValues(new Uint8Array(RANDOM_BYTES)));
const here = () => location.origin + location.pathname;

const dialog = document.createElement("dialog");
dialog.id = "sign-in";
dialog.setAttribute("aria-labelledby", "sign-in-title");
dialog.innerHTML = `
  <h2 id="sign-in-title">Sign in</h2>
  <p id="token-problem" class="error" hidden></p>
  <p id="at-issuer" hidden><button type="button">Sign in at the issuer</button></p>
  <p>This gateway requires a token: an API key of <code>mdtool token new</code>, or a token of the
    configured issuer. It is forgotten when the page is left.</p>
  <form method="dialog">
    <label for="token">token</label>
    <input id="token" type="password" autocomplete="off" required>
    <button>Use the token</button>
  </form>`;
document.body.append(dialog);
const part = (selector) => dialog.querySelector(selector);

function complain(text) {
  part("#token-problem").textContent = text;
  part("#token-problem").hidden = false;
}

// What the gateway says of its issuer, null where there is none.
async function issuer() {
  const response = await fetch("api/v2/sign-in");
  return response.ok ? (await response.json()).data : null;
}

async function leave({ authorize, client_id: clientId, scope }) {
  const pending = { state: random(), verifier: random(), url: location.href };
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(pending.verifier));
  store("sessionStorage", PENDING, pending);
  const url = new URL(authorize);
  const query = {
    response_type: "code",
    client_id: clientId,
    scope,
    redirect_uri: here(),
    state: pending.state,
    code_challenge: encoded(new Uint8Array(digest)),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(query)) {
    url.searchParams.set(name, value);
  }
  location.assign(url);
}

// The user has come back: only the page that it left knows the state.
async function comeBack() {
  const query = new URLSearchParams(location.search);
  const pending = stored("sessionStorage", PENDING);
  store("sessionStorage", PENDING, null);
  if (pending === null || query.get("state") !== pending.state) {
    return;
  }
  history.replaceState(null, "", pending.url);
  if (!query.has("code")) {
    complain(query.get("error_description") ?? query.get("error") ?? "The issuer gave no code.");
    return;
  }
  try {
    await token.exchange({ code: query.get("code"), verifier: pending.verifier, redirect: here() });
  } catch (error) {
    complain(error.message);
  }
}

part("#at-issuer button").addEventListener("click", async () => {
  if (!globalThis.isSecureContext) {
    complain("To sign in at the issuer takes https, or localhost.");
    return;
  }
  try {
    await leave(await issuer());
  } catch {
    complain("The issuer does not answer.");
  }
});
part("form").addEventListener("submit", () => {
  token.value = part("#token").value.trim();
});
dialog.addEventListener("close", () => {
  part("#token").value = "";
});
token.addEventListener("change", () => dialog.close());
token.addEventListener("rejected", async () => {
  if (token.value !== null) {
    complain("The last token is not valid, or has expired.");
  }
  if (!dialog.open) {
    dialog.showModal();
    part("#at-issuer").hidden = (await issuer().catch(() => null)) === null;
  }
});

// Before anything of the page makes a request.
await comeBack();
