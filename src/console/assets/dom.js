// Builds and changes elements. Text is only ever text here: nothing parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** `el("p.note", { id: "a" }, "text", node, [more])`: attributes, and handlers as `onclick`. `null` and `false` are left out. */
export function el(what, ...rest) {
  const [name, ...classes] = what.split(".");
  const node = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  const [first] = rest;
  if (first && typeof first === "object" && !(first instanceof Node) && !Array.isArray(first)) {
    rest.shift();
    for (const [key, value] of Object.entries(first)) {
      if (key.startsWith("on")) node[key] = value;
      else if (key === "value") node.value = value;
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
  }
  node.append(...kids(rest));
  return node;
}

/** What there is of children. A kept node that is on the page stays there for now: something stands in for it. */
function kids(list) {
  const some = list.flat(Infinity).filter((kid) => kid !== null && kid !== undefined && kid !== false);
  return some.map((kid) => (kid.kept && kid.isConnected ? standIn(kid) : kid));
}

function standIn(kid) {
  const node = document.createComment("");
  node.standsFor = kid;
  return node;
}

/** The node with those that others stand in for. */
function settled(node) {
  if (node.standsFor) return node.standsFor;
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_COMMENT);
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  for (const comment of found) if (comment.standsFor) comment.replaceWith(comment.standsFor);
  return node;
}

const keyOf = (node) => node.getAttribute?.("data-key") ?? null;

const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "ontoggle"];

/** Makes the children of `parent` those given, and leaves alone what is the same, so that focus and open details stay. Children with a
 * `data-key` are known by it, wherever they stand. */
export function show(parent, ...children) {
  const wanted = kids(children).map((kid) => (kid instanceof Node ? kid : document.createTextNode(kid)));
  const keys = new Set(wanted.map(keyOf));
  const keyed = new Map();
  for (const node of [...parent.children]) {
    const key = keyOf(node);
    if (key === null) continue;
    if (keys.has(key)) keyed.set(key, node);
    else node.remove();
  }
  wanted.forEach((node, at) => {
    const key = keyOf(node);
    const here = parent.childNodes[at] ?? null;
    const old = key === null ? here : keyed.get(key);
    keyed.delete(key);
    if (!old) return void parent.insertBefore(settled(node), here);
    if (old !== here) move(parent, old, here);
    turn(old, node);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

/** Puts a child before another. The focus would be lost on the way. */
function move(parent, node, before) {
  const focused = node.contains(document.activeElement) && document.activeElement;
  parent.insertBefore(node, before);
  if (focused) focused.focus({ preventScroll: true });
}

/** Makes `old` what `node` is. A kept node is shown as itself or not at all. */
function turn(old, node) {
  if (old === node || old === node.standsFor) return;
  const isOther = old.nodeName !== node.nodeName || node.kept || node.standsFor || old.kept || keyOf(old) !== keyOf(node);
  if (isOther) return void old.replaceWith(settled(node));
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!node.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of [...node.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const handler of HANDLERS) old[handler] = node[handler];
  show(old, ...node.childNodes);
}

/** Marks a node that is kept as it is when what stands around it is shown anew. */
export function keep(node) {
  node.kept = true;
  return node;
}

/** A link to a page: parts of the route, each of which may hold anything. */
export const route = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export const link = (text, ...parts) => el("a", { href: route(...parts) }, text);

export const button = (text, onclick, more = {}) => el("button", { type: "button", onclick, ...more }, text);

export const badge = (text, kind = "") => el(`span.badge${kind && `.${kind}`}`, text);

/** A few words that stay for a moment. */
export function toast(text, kind = "") {
  const node = el(`p.toast${kind && `.${kind}`}`, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), kind === "bad" ? 9000 : 4000);
}

let dialogs = 0;

/** Opens a dialog. `fill(close)` gives its content; the promise is of what `close` was told, or null. */
export function dialog(title, fill) {
  return new Promise((resolve) => {
    const id = `dialog-${(dialogs += 1)}`;
    const node = el("dialog", { "aria-labelledby": id });
    let answer = null;
    const close = (value) => {
      answer = value;
      node.close();
    };
    node.append(el("h2", { id }, title), ...kids([fill(close)]));
    node.addEventListener("close", () => {
      node.remove();
      resolve(answer);
    });
    addEventListener("hashchange", () => node.open && node.close(), { once: true });
    document.body.append(node);
    node.showModal();
  });
}

/** Asks before something that cannot be taken back. */
export const confirm = (title, text, verb) =>
  dialog(title, (close) => [
    el("p", text),
    el("div.buttons", button("Cancel", () => close(false), { autofocus: true }), button(verb, () => close(true), { class: "bad" })),
  ]);

let fields = 0;

/** A form's field: label, input, what is allowed, and room for what is wrong. `path` is its name in errors of the API. */
export function field(label, input, { hint, path } = {}) {
  const id = `field-${(fields += 1)}`;
  input.id = id;
  const about = el("small", { id: `${id}-hint` }, hint ?? "");
  const wrong = el("small.wrong", { id: `${id}-wrong`, hidden: true });
  input.setAttribute("aria-describedby", `${id}-hint ${id}-wrong`);
  const node = el("div.field", el("label", { for: id }, label), input, hint && about, wrong);
  node.path = path;
  node.complain = (text) => {
    wrong.textContent = text;
    wrong.hidden = !text;
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  node.input = input;
  return node;
}

/** A select with `[value, text]` options. */
export function select(options, value, more = {}) {
  const node = el("select", more, options.map(([value, text]) => el("option", { value }, text)));
  if (value !== undefined && value !== null) {
    if (!options.some(([known]) => known === value)) node.append(el("option", { value }, value));
    node.value = value;
  }
  return node;
}
