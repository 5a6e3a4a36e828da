// What an event says: its names, its payload as text, and JSON that can be read.

import { el, keep } from "./dom.js";
import { clock } from "./show.js";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Bytes of base64. */
export function fromBase64(text) {
  const binary = atob(text ?? "");
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

export function toBase64(text) {
  let binary = "";
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** Bytes as people read them: text, or hexadecimal where they are none. */
export function readable(data) {
  try {
    return { text: utf8.decode(data), isText: true };
  } catch {
    const some = [...data.subarray(0, 256)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    return { text: data.length > 256 ? `${some} … ${data.length} bytes` : some, isText: false };
  }
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** An event of a message, as parsed JSON; a transformer may have made anything of it. */
export function event(value) {
  const { event_metadata: about = {}, details } = value ?? {};
  const type = String(about.event_type ?? "").split(".").at(-1);
  const made = { id: about.event_id, at: about.created_at, type, value };
  if (!details || typeof details !== "object") return { ...made, from: type, text: JSON.stringify(value), decoded: value };
  if (typeof details.mqtt_topic === "string") {
    let payload = details.payload;
    if (typeof payload === "string") {
      try {
        payload = readable(fromBase64(payload)).text;
      } catch {
        // It was not base64: a trigger may write payloads as text.
      }
    }
    const text = typeof payload === "string" ? payload : JSON.stringify(payload) ?? "";
    const decoded = { ...value, details: { ...details, payload: (typeof payload === "string" && json(payload)) || payload } };
    return { ...made, from: details.mqtt_topic, text, decoded };
  }
  if (details.repository_name) {
    const text = [type, details.tag, details.image_digest].filter(Boolean).join(" ");
    return { ...made, from: details.repository_name, text, decoded: value };
  }
  return { ...made, from: type, text: JSON.stringify(details), decoded: value };
}

const TOKEN = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;

/** JSON, indented, with its parts marked. */
export function pretty(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "";
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    parts.push(text.slice(end, match.index));
    const kind = match[1] ? (match[2] ? "name" : "text") : "value";
    parts.push(el(`span.json-${kind}`, match[1] ?? match[0]), match[2] ?? "");
    end = match.index + match[0].length;
  }
  return el("pre", { tabindex: "0" }, parts, text.slice(end));
}

/** A list of events, the newest first, whose entries open. `show` takes texts such as those of the monitoring calls. */
export function eventList(empty) {
  const list = el("ol.events");
  const node = keep(el("div", el("p.empty", empty)));
  let rows = new Map();
  return {
    node,
    show(texts = []) {
      const wanted = new Map(texts.map((text) => {
        const made = event(json(text) ?? { details: text });
        const key = `${made.id} ${made.from} ${made.text}`;
        return [key, rows.get(key) ?? eventRow(made)];
      }));
      if ([...wanted.keys()].join() !== [...rows.keys()].join()) list.replaceChildren(...wanted.values());
      rows = wanted;
      if (rows.size && !list.isConnected) node.replaceChildren(list);
    },
  };
}

/** A line of a list of events; what it holds is made when it is opened. */
export function eventRow(made, raw = () => false) {
  const more = el("div");
  const ontoggle = () => details.open && more.replaceChildren(pretty(raw() ? made.value : made.decoded));
  const details = el("details", { ontoggle },
    el("summary",
      el("time", { datetime: made.at, title: made.at }, clock(made.at)),
      el("span.from", { title: made.type }, made.from || "–"),
      el("span.payload", made.text.slice(0, 300))),
    more);
  return el("li", details);
}
