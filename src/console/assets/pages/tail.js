// The live tail of a path: what its clients get, over a WebSocket like theirs. It comes back with the id of its last event, and keeps 500.

import { button, el, field, select, show, toast } from "../dom.js";
import { all, pathsOf, session, socketUrl } from "../api.js";
import { eventRow, events as eventsOf, readable } from "../event.js";
import { count, lasting, rate } from "../show.js";

const KEPT = 500;
/** Milliseconds between two looks of the list, and seconds from which on it is said how late the newest event came. */
const TURN = 250;
const LATE = 5;
const STARTS = [["", "What comes from now on"], ["last=20", "The last 20 events"], ["last=500", "The last 500 events"], ["since=5m", "The last five minutes"], ["since=1h", "The last hour"]];
/** Codes after which it makes no sense to come back: what the client does, or who it is, is refused. */
const FINAL = new Set([1002, 1007, 1008, 1009, 4401]);

/** Whether a declared path, which may be a template, has room for this one. */
function hasRoom(declared, path) {
  const [names, parts] = [declared.split("/"), path.split("/")];
  const isLong = names.at(-1).endsWith("+}") && parts.length > names.length;
  return (isLong || names.length === parts.length) && names.every((name, at) => name === parts[at] || (/^\{.*\}$/.test(name) && parts[at]));
}

export async function tail(page) {
  const [givenGateway, givenPath] = page.named;
  const { signal } = page;
  const gateways = await all("/apigateways/v1/apigateways", { folderId: session.folder }, "apiGateways", signal).catch(() => []);
  const known = el("datalist", { id: "tail-paths" });
  let paths = [];
  /** Offers the paths of the gateway; what they are is asked for when it is chosen. */
  const offer = async () => {
    const id = gateway.input.value;
    const list = id ? await pathsOf(id, signal).catch(() => []) : [];
    if (id !== gateway.input.value) return;
    paths = list.map(({ path }) => path);
    known.replaceChildren(...paths.map((path) => el("option", { value: path })));
  };
  const gateway = field("Gateway", select(gateways.map(({ id, name }) => [id, name || id]), givenGateway, { onchange: () => offer() }));
  const offered = offer();
  if (!givenPath) await offered;
  const path = field("Path", el("input", { type: "text", value: givenPath ?? paths.find((path) => !path.includes("{")) ?? "/ws", list: "tail-paths", spellcheck: "false", autocomplete: "off" }));
  const start = field("Begin with", select(STARTS, "last=20"));
  const filter = field("Filter", el("input", { type: "search", placeholder: "Text, such as a device or a value", oninput: () => draw() }));
  const extra = field("Query", el("input", { type: "text", spellcheck: "false", autocomplete: "off", placeholder: "device=press-1&token=…" }), { hint: "More of the URL: filters of the server, or a token where the path asks for one." });
  const raw = el("input", { type: "checkbox", onchange: () => [...rows.children].forEach((row) => row.fill()) });

  const rows = el("ol.events", { "aria-label": "Events, the newest first" });
  const empty = el("p.empty", "Waiting for events…");
  const state = el("span.badge", "Not connected");
  const trouble = el("div", { role: "status" });
  const numbers = el("span.muted");
  const pause = button("Pause", () => hold(!paused), { "aria-pressed": "false" });
  const connectButton = button("Connect", () => (wanted ? stop("Not connected") : begin()), { class: "main" });

  let events = [];
  let fresh = [];
  let paused = false;
  let isRead = false;
  let late = 0;
  let opened = 0;
  let wanted = false;
  let socket = null;
  let last = "";
  let seen = 0;
  let waits = 0;
  let timer = 0;
  let planned = 0;
  const times = [];

  const say = (text, kind = "") => {
    state.textContent = text;
    state.className = `badge ${kind}`;
    connectButton.textContent = wanted ? "Disconnect" : "Connect";
  };

  const stop = (why) => {
    wanted = false;
    show(trouble);
    clearTimeout(timer);
    socket?.close();
    socket = null;
    say(why);
  };

  /** What may be in the way: browsers do not say. */
  const guess = () => {
    const asked = path.input.value.trim().split("?")[0];
    if (paths.length && !paths.some((path) => hasRoom(path, asked))) return `The gateway ${gateway.input.value} has no path ${asked}.`;
    return `It may be that the path asks for a token (“More”, Query: token=…), that the gateway's allowed_origins lack ${location.origin}, `
      + `that it is stopped, or that ${socketUrl("", "").host} cannot be reached from here.`;
  };

  const begin = () => {
    stop("");
    opened = 0;
    last = "";
    waits = 0;
    wanted = true;
    connect();
  };

  const connect = () => {
    let url;
    try {
      const query = Object.fromEntries(new URLSearchParams(extra.input.value));
      // Whoever comes back without an id goes on with what comes then: the past was seen.
      const from = last ? { last_event_id: last } : Object.fromEntries(new URLSearchParams(opened ? "" : start.input.value));
      url = socketUrl(gateway.input.value, path.input.value.trim(), { ...query, ...from });
      socket = new WebSocket(url);
    } catch (error) {
      return stop(`Not possible: ${error.message}`);
    }
    const own = socket;
    own.binaryType = "arraybuffer";
    say("Connecting…");
    own.onopen = () => {
      waits = 0;
      opened = performance.now();
      show(trouble);
      say("Live", "good");
    };
    own.onmessage = ({ data }) => own === socket && take(data);
    own.onclose = ({ code, reason }) => {
      if (own !== socket || !wanted) return;
      show(trouble, !opened && el("p.note", "It was never let in. ", guess()));
      const why = code === 1006 ? "refused, or broken" : [code, reason].filter(Boolean).join(" ");
      if (FINAL.has(code)) return stop(`Closed: ${why}`);
      const wait = Math.min(10000, 500 * 2 ** waits) * (0.75 + Math.random() / 2);
      waits += 1;
      say(`Comes back in ${rate(wait / 1000)} s (${why})`, "warn");
      timer = setTimeout(connect, wait);
    };
  };

  const take = (data) => {
    const made = eventsOf(typeof data === "string" ? data : readable(new Uint8Array(data)).text);
    last = made.at(-1).id ?? last;
    seen += made.length;
    times.push([performance.now(), made.length]);
    fresh.push(...made);
    if (fresh.length > KEPT) fresh.splice(0, fresh.length - KEPT);
    // What was asked for of the past comes first, and is no delay.
    late = performance.now() - opened > 2000 ? (Date.now() - new Date(made.at(-1).at)) / 1000 : 0;
    planned ||= setTimeout(flush, TURN);
  };

  const fits = (made) => {
    const words = filter.input.value.trim().toLowerCase();
    return !words || `${made.from} ${made.type} ${made.text}`.toLowerCase().includes(words);
  };
  const row = (made) => (made.row ??= eventRow(made, () => raw.checked));

  /** Shows what has come; while it is paused, only how much. */
  const flush = () => {
    planned = 0;
    if (!paused) {
      rows.prepend(...fresh.filter(fits).reverse().map(row));
      events = [...events, ...fresh].slice(-KEPT);
      fresh = [];
      while (rows.childElementCount > KEPT) rows.lastChild.remove();
    }
    tell();
  };

  const draw = () => {
    rows.replaceChildren(...events.filter(fits).reverse().map(row));
    tell();
  };

  const tell = () => {
    const since = performance.now() - 5000;
    while (times.length && times[0][0] < since) times.shift();
    const perSecond = times.reduce((sum, [, n]) => sum + n, 0) / 5;
    const waiting = paused && fresh.length ? ` · ${count(fresh.length)}${fresh.length === KEPT ? " or more" : ""} wait` : "";
    const delay = times.length && late >= LATE ? ` · ${lasting(late)} behind` : "";
    numbers.textContent = `${count(seen)} event${seen === 1 ? "" : "s"} · ${rate(perSecond)}/s${delay}${waiting}`;
    empty.hidden = rows.childElementCount > 0;
    empty.textContent = events.length ? "No event fits the filter." : "Waiting for events…";
  };

  const hold = (on, byReading = false) => {
    paused = on;
    isRead = on && byReading;
    pause.textContent = on ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(on));
    flush();
  };

  // Nothing moves away from under an event that is read, until it is closed, or told to go on.
  rows.addEventListener("toggle", ({ target }) => {
    if (target.open && !paused) hold(true, true);
    else if (isRead && !rows.querySelector("details[open]")) hold(false);
  }, true);

  const clear = button("Clear", () => {
    events = [];
    fresh = [];
    draw();
  });
  const copy = button("Copy", async () => {
    const text = events.filter(fits).map(({ raw }) => raw.replace(/\s*\n\s*/g, " ")).join("\n");
    await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => toast("Copied, one event a line.", "good"), () => toast("The browser does not allow it.", "bad"));
  });
  const ticking = setInterval(tell, 1000);
  signal.addEventListener("abort", () => {
    clearInterval(ticking);
    clearTimeout(planned);
    stop("");
  });
  const onsubmit = (event) => {
    event.preventDefault();
    begin();
  };
  tell();
  if (givenGateway && givenPath) begin();
  else say("Not connected");
  return [
    page.head("Live tail", { actions: [el("span", { role: "status" }, state), connectButton] }),
    el("form.card", { onsubmit }, el("div.grid.tail", gateway, path, start), known,
      el("details", el("summary", "More"), extra), el("button", { type: "submit", hidden: true }, "Connect")),
    trouble,
    el("section.card.flush",
      el("div.card-head", el("div.actions", pause, clear, copy, el("label.check", raw, "As sent")), numbers, filter),
      empty, rows),
  ];
}
