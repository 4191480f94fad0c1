// The page at /docs: shows what openapi.json says, and makes the calls. Nothing is kept beyond the page's life.
const METHODS = ["get", "post", "put", "patch", "delete"];
const PROJECT = "/projects/{project}";
const byId = (id) => document.getElementById(id);
let description, token = "";

/** Make an element: its properties, then its children (text or elements). */
function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

/** Follow a reference within the description. */
function solid(thing) {
  let found = thing;
  while (found?.$ref) found = found.$ref.slice(2).split("/").reduce((at, part) => at[part.replaceAll("~1", "/")], description);
  return found;
}

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const firstExample = (media) => media?.example ?? Object.values(media?.examples ?? {})[0]?.value;

/** Show `code` in a text as code; the rest stays text. */
function text(said) {
  return (said ?? "").split(/(`[^`]+`)/).map((part) => (/^`.+`$/.test(part) ? make("code", {}, part.slice(1, -1)) : part));
}

/** Make the input for a value of this schema. */
function inputFor(schema, name, preset) {
  const kind = solid(schema);
  const choices = kind.enum ?? (kind.type === "boolean" ? ["true", "false"] : null);
  if (!choices) return make("input", { name, value: preset ?? "", autocomplete: "off", spellcheck: false });
  const list = make("select", { name }, make("option", { value: "" }, "–"));
  for (const choice of choices) list.append(make("option", { value: choice, selected: choice === preset }, String(choice)));
  return list;
}

const isFile = (schema) => {
  const kind = solid(schema);
  const inner = solid(kind.items ?? kind.allOf?.[0] ?? kind);
  return inner.format === "binary";
};

/** Make the part of a call's form that holds its body; returns the element and what reads it. */
function bodyEditor(body) {
  if (!body) return [null, () => ({})];
  const kinds = Object.keys(body.content).filter((kind) => kind !== "application/octet-stream");
  const names = { "application/json": "JSON", "multipart/form-data": "form with files", "image/*": "the image alone" };
  const choice = make("select", { name: "body" }, ...kinds.map((kind) => make("option", { value: kind }, names[kind] ?? kind)));
  const place = make("div", { className: "row" });
  let read;
  const show = () => {
    const kind = choice.value, media = body.content[kind];
    place.replaceChildren();
    if (kind === "application/json") {
      const area = make("textarea", { name: "json", spellcheck: false, ariaLabel: "JSON body", value: pretty(firstExample(media) ?? {}) });
      place.append(area);
      read = () => ({ headers: { "Content-Type": kind }, body: area.value, curl: `-H 'content-type: ${kind}' -d ${quoted(area.value)}` });
    } else if (kind === "multipart/form-data") {
      const fields = Object.entries(solid(media.schema).properties).map(([name, schema]) => {
        const several = solid(schema).type === "array";
        const field = isFile(schema) ? make("input", { type: "file", name, multiple: several }) : inputFor(schema, name);
        place.append(make("label", {}, name, field));
        return field;
      });
      read = () => {
        const form = new FormData(), parts = [];
        for (const field of fields) {
          const values = field.files ? [...field.files] : field.value ? [field.value] : [];
          for (const value of values) {
            form.append(field.name, value);
            parts.push(`-F ${quoted(field.files ? `${field.name}=@${value.name}` : `${field.name}=${value}`)}`);
          }
        }
        return { body: form, curl: parts.join(" ") };
      };
    } else {
      const field = make("input", { type: "file", name: "content" });
      place.append(make("label", {}, "image", field));
      read = () => {
        const file = field.files[0];
        const type = file?.type || "application/octet-stream";
        return { headers: { "Content-Type": type }, body: file ?? "", curl: `-H 'content-type: ${type}' --data-binary ${quoted(`@${file?.name ?? ""}`)}` };
      };
    }
  };
  choice.addEventListener("change", show);
  show();
  const named = kinds.length > 1 ? make("label", {}, "Body as", choice) : make("p", { className: "note" }, `Body: ${names[kinds[0]] ?? kinds[0]}`);
  return [make("div", {}, named, place), () => read()];
}

const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;

/** Show what a call answered. */
async function showAnswer(place, answer, ms) {
  const kind = answer.headers.get("content-type") ?? "";
  place.append(make("p", {}, make("span", { className: answer.ok ? "fine" : "bad" }, `${answer.status} ${answer.statusText}`), ` in ${ms} ms`));
  const told = ["location", "retry-after", "x-request-id"].filter((name) => answer.headers.has(name));
  place.append(make("p", { className: "note" }, told.map((name) => `${name}: ${answer.headers.get(name)}`).join(" · ")));
  if (kind.startsWith("image/")) {
    place.append(make("img", { alt: "the answer", src: URL.createObjectURL(await answer.blob()) }));
    return;
  }
  const content = await answer.text();
  if (!kind.includes("json")) return place.append(make("pre", {}, content));
  const pictures = [];
  const shown = JSON.stringify(JSON.parse(content), (name, value) => {
    if (name !== "heatmap") return value;
    pictures.push(value);
    return "(below)";
  }, 2);
  place.append(make("pre", {}, shown), ...pictures.map((data) => make("img", { alt: "heat map", src: `data:image/png;base64,${data}` })));
}

/** Make the call that the form describes. */
async function send(method, path, fields, body, place, button) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const query = new URLSearchParams();
  const project = byId("project").value;
  let target = project && description.paths[PROJECT + path] ? `${PROJECT.replace("{project}", encodeURIComponent(project))}${path}` : path;
  for (const [parameter, field] of fields) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(field.value));
    else if (field.value && parameter.in === "query") query.set(parameter.name, field.value);
    else if (field.value) headers[parameter.name] = field.value;
  }
  const { headers: more = {}, body: content, curl = "" } = body();
  const address = `${description.servers[0].url}${target}${query.size ? `?${query}` : ""}`;
  const login = token ? '-H "Authorization: Bearer $token"' : "";
  const asked = fields.filter(([parameter, field]) => parameter.in === "header" && field.value).map(([parameter, field]) => `-H ${quoted(`${parameter.name}: ${field.value}`)}`);
  const line = ["curl", method === "get" ? "" : `-X ${method.toUpperCase()}`, login, ...asked, curl, quoted(address)].filter(Boolean).join(" ");
  place.replaceChildren(make("pre", { className: "curl" }, line));
  button.disabled = true;
  const began = performance.now();
  try {
    // Without credentials, so that the browser does not ask for a password of its own.
    const answer = await fetch(address, { method: method.toUpperCase(), headers: { ...headers, ...more }, body: content, credentials: "omit" });
    await showAnswer(place, answer, Math.round(performance.now() - began));
  } catch (error) {
    place.append(make("p", { className: "bad" }, `No answer: ${error.message}`));
  } finally {
    button.disabled = false;
  }
}

function showCall(path, method, call, shared) {
  const fields = [...(shared ?? []), ...(call.parameters ?? [])].map(solid)
    .map((parameter) => [parameter, inputFor(parameter.schema, parameter.name, parameter.in === "path" ? String(parameter.example ?? "") : "")]);
  const [editor, read] = bodyEditor(call.requestBody);
  const button = make("button", {}, "Send");
  const place = make("div", { className: "answer", ariaLive: "polite" });
  const form = make("form", {}, ...fields.map(([parameter, field]) => make("label", { title: parameter.description ?? "" }, parameter.name, field)));
  const whole = make("div", {}, form, editor, make("p", {}, button), place);
  form.addEventListener("submit", (event) => event.preventDefault());
  button.addEventListener("click", () => send(method, path, fields, read, place, button));
  const answers = make("dl");
  for (const [status, one] of Object.entries(call.responses)) {
    const answer = solid(one), example = firstExample(answer.content?.["application/json"]);
    const data = example === undefined ? null : make("details", {}, make("summary", {}, "example"), make("pre", {}, pretty(example)));
    answers.append(make("dt", {}, status), make("dd", {}, ...text(answer.description), data));
  }
  const notes = fields.filter(([parameter]) => parameter.description)
    .map(([parameter]) => make("p", { className: "note" }, make("code", {}, parameter.name), " ", ...text(parameter.description)));
  const title = make("summary", {}, make("span", { className: `method ${method}` }, method.toUpperCase()), " ", make("code", {}, path), " ", make("span", {}, call.summary));
  return make("details", { className: "call", id: call.operationId }, title,
    make("div", {}, make("p", {}, ...text(call.description)), ...notes, make("h3", {}, "Try it"), whole, make("h3", {}, "Answers"), answers));
}

function showAll() {
  const intro = description.info.description.split(/\n\s*\n/);
  byId("intro").replaceChildren(...intro.map((part) => (part.startsWith("- ")
    ? make("ul", {}, ...part.split(/\n?- /).filter(Boolean).map((item) => make("li", {}, ...text(item))))
    : make("p", {}, ...text(part)))));
  const sections = description.tags.map((tag) => {
    const calls = Object.entries(description.paths).filter(([path]) => !path.startsWith(PROJECT)).flatMap(([path, item]) =>
      METHODS.filter((method) => item[method]?.tags?.includes(tag.name)).map((method) => showCall(path, method, item[method], item.parameters)));
    return make("section", {}, make("h2", {}, tag.name, " ", make("small", {}, tag.description)), ...calls);
  });
  byId("calls").replaceChildren(...sections);
  const names = description.components.parameters.Project.schema.enum ?? [];
  byId("project").append(...names.map((name) => make("option", { value: name }, name)));
  const open = byId(decodeURIComponent(location.hash.slice(1)));
  if (open?.matches("details")) open.open = true;
  byId("account").hidden = !Object.values(description.paths).some((item) => METHODS.some((method) => item[method]?.security?.length));
}

function nowAs(who) {
  byId("who").textContent = who;
  for (const part of byId("account").querySelectorAll(".out")) part.hidden = Boolean(token);
  byId("leave").hidden = !token;
}

byId("account").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, fields = new FormData(form);
  const answer = await fetch("login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(Object.fromEntries(fields)), credentials: "omit" });
  const told = await answer.json();
  token = told.token ?? "";
  if (token) form.reset();
  nowAs(token ? `${told.name}, ${told.role}, until ${new Date(told.expires_at).toLocaleTimeString()}` : told.error);
});
byId("leave").addEventListener("click", () => { token = ""; nowAs(""); });

try {
  description = await (await fetch("openapi.json", { credentials: "omit" })).json();
  showAll();
} catch (error) {
  byId("calls").replaceChildren(make("p", { className: "bad" }, `The description cannot be read: ${error.message}`));
}
