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
  document.querySelector("#docs > p").textContent =
    "Swagger UI could not be loaded. It comes from a CDN, unless mdtool gateway --assets names a " +
    "folder node_modules that has it. The document that it shows is at /openapi.json.";
}
