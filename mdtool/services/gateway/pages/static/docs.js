"use strict";

// Shows the gateway's own OpenAPI document.
if (window.SwaggerUIBundle) {
  SwaggerUIBundle({
    url: new URL("openapi.json", document.baseURI).href,
    dom_id: "#docs",
    deepLinking: true,
    validatorUrl: null,
  });
} else {
  showPlain(document.getElementById("docs"));
}

// The paths, and what each does: what can be shown without Swagger UI.
async function showPlain(element) {
  element.firstElementChild.textContent =
    "Swagger UI could not be loaded. It comes from a CDN, unless mdtool gateway --assets names a " +
    "folder node_modules that has it. The document that it shows is at /openapi.json.";
  const list = document.createElement("dl");
  element.append(list);
  const response = await fetch("openapi.json").catch(() => null);
  const { paths = {} } = (await response?.json().catch(() => null)) ?? {};
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { summary }] of Object.entries(methods)) {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      const code = document.createElement("code");
      code.textContent = `${method.toUpperCase()} ${path}`;
      code.style.overflowWrap = "anywhere";
      term.append(code);
      text.textContent = summary ?? "";
      list.append(term, text);
    }
  }
}
