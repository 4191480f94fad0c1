// Starts Swagger UI on /openapi.json. Credentials entered under "Authorize" are kept until the page is closed.

const namesProject = (operation) => Number(operation.get("path").startsWith("/projects/"));

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: false,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  tryItOutEnabled: true,
  validatorUrl: null,
  // The short forms first: those that name the project repeat them.
  operationsSorter: (a, b) => namesProject(a) - namesProject(b),
  // Without credentials, so that the browser does not prompt for a password of its own.
  requestInterceptor: (request) => Object.assign(request, { credentials: "omit" }),
});
