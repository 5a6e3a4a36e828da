// Starts the console: which page the address names, who is signed in, light or dark.

import { button, confirm, dialog, el, select } from "./dom.js";
import { ApiError, get, session, whenUnknown } from "./api.js";
import { signIn } from "./pages/sign_in.js";
import { trouble } from "./show.js";

const triggers = () => import("./pages/triggers.js").then((file) => file.triggers);
const trigger = () => import("./pages/trigger.js").then((file) => file.trigger);
const triggerForm = () => import("./pages/trigger_form.js").then((file) => file.triggerForm);
const tail = () => import("./pages/tail.js").then((file) => file.tail);

/** Routes by their parts, and where their pages are, which are loaded when they are opened; `:` stands for a part that a page is told. */
const PAGES = [
  ["", () => import("./pages/overview.js").then((file) => file.overview)],
  ["triggers", triggers],
  ["triggers/new", triggerForm],
  ["triggers/:", trigger],
  ["triggers/:/edit", triggerForm],
  ["tail", tail],
  ["tail/:/:", tail],
  ["gateways", () => import("./pages/gateways.js").then((file) => file.gateways)],
  ["gateways/:", () => import("./pages/gateways.js").then((file) => file.gateway)],
  ["devices", () => import("./pages/devices.js").then((file) => file.devices)],
  ["devices/:", () => import("./pages/devices.js").then((file) => file.deviceRegistry)],
  ["containers", () => import("./pages/containers.js").then((file) => file.containers)],
  ["containers/:", () => import("./pages/containers.js").then((file) => file.containerRegistry)],
  ["audit", () => import("./pages/audit.js").then((file) => file.audit)],
];

/** Milliseconds that a page may take before it is said that it is loading. */
const PATIENCE = 300;

const main = document.getElementById("main");
const side = document.getElementById("side");
let leaving = new AbortController();
let isFirst = true;
let isAsking = false;
/** The page that is open, and its address. */
let current = null;
let here = location.hash;
let folderKnown = Promise.resolve();

function find(parts) {
  for (const [pattern, load] of PAGES) {
    const wanted = pattern.split("/");
    if (wanted.length !== parts.length) continue;
    if (wanted.every((want, at) => want === ":" || want === parts[at])) {
      return { load, named: parts.filter((_, at) => wanted[at] === ":") };
    }
  }
  return null;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** What a page may use: what its address names, a signal that it is left, and its heading. */
function pageOf(named) {
  const page = {
    named,
    signal: leaving.signal,
    /** The heading with its actions. */
    head(title, { about, actions = [] } = {}) {
      document.title = `${title} · Triggercast`;
      return el("div.head", el("div", el("h1", { tabindex: "-1" }, title), about && el("p.muted", about)), el("div.actions", actions));
    },
    go: (hash) => {
      location.hash = hash;
    },
    /** Whether something was typed that would be lost; forms say so. */
    isChanged: () => false,
  };
  return page;
}

/** Whether the page may be left: yes, unless something typed would be lost and is not to be. */
async function mayLeave() {
  if (!current?.isChanged()) return true;
  if (isAsking) return false;
  isAsking = true;
  const answer = await confirm("Leave without saving?", "What you have changed here is lost.", "Leave");
  isAsking = false;
  return answer === true;
}

/** Opens what the address names now, or puts the address back. */
async function follow() {
  if (location.hash === here) return;
  if (await mayLeave()) open();
  else if (location.hash !== here) history.pushState(null, "", here || "#/");
}

async function open() {
  here = location.hash;
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const isIn = session.authorization !== null;
  side.hidden = !isIn;
  document.body.classList.toggle("in", isIn);
  if (!isIn) {
    current = null;
    main.replaceChildren(signIn(pageOf([]), enter));
    main.querySelector("input[type=password]").focus();
    return;
  }
  const path = location.hash.replace(/^#?\/?/, "");
  const found = find(path.split("/").map(decoded));
  for (const a of side.querySelectorAll("nav a")) {
    const own = a.hash.replace("#/", "");
    const here = own === path || (own && path.startsWith(`${own}/`));
    if (!here) a.removeAttribute("aria-current");
    else {
      a.setAttribute("aria-current", "page");
      a.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
  const page = pageOf(found?.named ?? []);
  current = page;
  const slow = setTimeout(() => {
    const title = side.querySelector("nav a[aria-current]")?.textContent ?? "Triggercast";
    if (!signal.aborted) main.replaceChildren(page.head(title), el("p.loading", { role: "status" }, "Loading…"));
  }, PATIENCE);
  try {
    const [make] = await Promise.all([found ? load(found) : nowhere, folderKnown]);
    if (signal.aborted) return;
    const made = await make(page);
    if (signal.aborted) return;
    clearTimeout(slow);
    main.replaceChildren(...[made].flat(Infinity).filter(Boolean));
  } catch (error) {
    clearTimeout(slow);
    if (signal.aborted || error.name === "AbortError") return;
    main.replaceChildren(page.head("Not to be shown"), trouble(error), el("div.buttons", button("Try again", open)));
  }
  scrollTo(0, 0);
  if (!isFirst) main.querySelector("h1")?.focus({ preventScroll: true });
  isFirst = false;
}

const nowhere = (page) => [page.head("No such page"), el("p", "There is nothing at this address.")];

const load = (found) =>
  found.load().catch(() => {
    throw new ApiError(0, "The server does not answer.");
  });

function enter() {
  isFirst = false;
  folderKnown = folders();
  open();
}

/** Lets people choose a folder, where there are several that they may see; the first, if they may not see the one that was chosen. */
async function folders() {
  const place = document.getElementById("folder-field");
  const answer = await get("/resource-manager/v1/folders", { cloudId: "triggercast" }).catch(() => ({}));
  const list = answer.folders ?? [];
  if (list.length && !list.some(({ id }) => id === session.folder)) session.folder = list[0].id;
  place.hidden = list.length < 2;
  if (place.hidden) return;
  const choice = select(list.map(({ id, name }) => [id, name || id]), session.folder, {
    id: "folder",
    onchange: async () => {
      if (!(await mayLeave())) return void (choice.value = session.folder);
      session.folder = choice.value;
      open();
    },
  });
  document.getElementById("folder").replaceWith(choice);
}

function signOut(error) {
  session.signOut();
  open();
  if (error?.message) main.querySelector("form").append(trouble(error));
}

/** Whose key is no longer known signs in again: over the page, if something is typed there. */
async function signInAgain(error) {
  if (isAsking) return;
  if (!current?.isChanged() && !document.querySelector("dialog[open]")) return signOut(error);
  isAsking = true;
  const { signal } = leaving;
  let isIn = null;
  while (isIn === null && !signal.aborted) {
    isIn = await dialog("Sign in again", (close) => [
      trouble(error),
      el("p.muted", "What you have typed is kept meanwhile."),
      signIn(pageOf([]), () => close(true), button("Sign out", () => close(false))),
    ]);
  }
  isAsking = false;
  if (!isIn && !signal.aborted) signOut();
}

const THEMES = ["system", "light", "dark"];
const themeButton = document.getElementById("theme");

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
  localStorage.setItem("triggercast.theme", theme);
  dispatchEvent(new Event("themechange"));
}

const chosen = () => THEMES.find((theme) => theme === localStorage.getItem("triggercast.theme")) ?? "system";

themeButton.onclick = () => setTheme(THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length]);
matchMedia("(prefers-color-scheme: dark)").onchange = () => dispatchEvent(new Event("themechange"));
document.getElementById("sign-out").onclick = async () => (await mayLeave()) && signOut();
document.getElementById("skip").onclick = (event) => {
  event.preventDefault();
  main.focus();
};
whenUnknown.do = signInAgain;
setTheme(chosen());
addEventListener("hashchange", follow);
addEventListener("beforeunload", (event) => current?.isChanged() && event.preventDefault());
if (session.authorization) folderKnown = folders();
open();
