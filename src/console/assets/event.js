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

const PART = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}:,]/g;

/** What stands directly in the text of an object or a list: names, values as they are written, and where. Numbers that JavaScript cannot
 * hold stay what they are. */
function members(text) {
  const made = [];
  let [depth, start, name] = [0, 0, undefined];
  const put = (end) => {
    const value = text.slice(start, end).trim();
    if (value) made.push({ name, text: value, at: text.indexOf(value, start) });
  };
  for (const { 0: part, index } of text.matchAll(PART)) {
    if (part === "]" || part === "}") depth -= 1;
    if (depth === 0 && "]}".includes(part)) put(index);
    if (depth === 1 && part === ",") put(index);
    if (depth === 1 && part === ":") name = json(text.slice(start, index));
    if (part === "[" || part === "{") depth += 1;
    if (depth === 1 && "[{:,".includes(part)) start = index + 1;
  }
  return made;
}

const member = (text, name) => members(text).findLast((member) => member.name === name) ?? { text: "", at: 0 };

/** The events of a message; a text that is no message is one event of its own. */
export function events(text) {
  const { messages } = json(text) ?? {};
  if (!Array.isArray(messages) || !messages.length) return [{ at: new Date().toISOString(), type: "message", from: "message", text, raw: text }];
  const raws = members(member(text, "messages").text);
  return messages.map((value, at) => event(value, raws[at]?.text ?? JSON.stringify(value)));
}

/** What should be a word, and may be anything. */
const word = (value) => (typeof value === "string" ? value : value === undefined || value === null ? undefined : JSON.stringify(value));

/** An event, parsed and as its text; a transformer may have made anything of it. */
export function event(value, raw) {
  const { event_metadata, details } = value ?? {};
  const about = event_metadata ?? {};
  const type = (word(about.event_type) ?? "").split(".").at(-1);
  const made = { id: word(about.event_id), at: word(about.created_at), type, raw };
  if (!details || typeof details !== "object") return { ...made, from: type, text: raw };
  const { text } = member(raw, "details");
  if (typeof details.mqtt_topic === "string") {
    const from = details.mqtt_topic;
    if (typeof details.payload !== "string") return { ...made, from, text: member(text, "payload").text };
    let { payload } = details;
    try {
      payload = readable(fromBase64(payload)).text;
    } catch {
      // It was not base64: a trigger may write payloads as text.
    }
    return { ...made, from, text: payload, payload };
  }
  if (details.repository_name) {
    const words = [type, word(details.tag), word(details.image_digest)];
    return { ...made, from: word(details.repository_name), text: words.filter(Boolean).join(" ") };
  }
  return { ...made, from: type, text };
}

/** The text of an event with its payload as what it is, in place of the base64. */
function decoded({ raw, payload }) {
  if (payload === undefined) return raw;
  const details = member(raw, "details");
  const own = member(details.text, "payload");
  const at = details.at + own.at;
  return raw.slice(0, at) + (json(payload) === undefined ? JSON.stringify(payload) : payload) + raw.slice(at + own.text.length);
}

const TOKEN = /("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|([[{])\s*([\]}])?|([\]}])|(,)|([^\s"[\]{}:,]+)/g;

/** The text of JSON, indented, with its parts marked; what is none stands as it is. */
export function pretty(text) {
  if (json(text) === undefined) return el("pre", { tabindex: "0" }, text);
  const parts = [];
  let depth = 0;
  const line = () => `\n${"  ".repeat(Math.min(depth, 50))}`;
  for (const [, string, colon, open, empty, close, comma, value] of text.matchAll(TOKEN)) {
    if (string) parts.push(el(colon ? "span.json-name" : "span.json-text", string), colon ? ": " : "");
    else if (empty) parts.push(open + empty);
    else if (open) {
      depth += 1;
      parts.push(open + line());
    } else if (close) {
      depth -= 1;
      parts.push(line() + close);
    } else parts.push(comma ? comma + line() : el("span.json-value", value));
  }
  return el("pre", { tabindex: "0" }, parts);
}

/** A list of events, the newest first, whose entries open. `show` takes texts such as those of the monitoring calls, and why there are none. */
export function eventList(empty) {
  const list = el("ol.events");
  const node = keep(el("div", el("p.empty", empty)));
  let rows = new Map();
  return {
    node,
    show(texts = [], why = empty) {
      const wanted = new Map(texts.map((text) => {
        const made = event(json(text), text);
        const key = `${made.id} ${made.from} ${made.text}`;
        return [key, rows.get(key) ?? eventRow(made)];
      }));
      if ([...wanted.keys()].join() !== [...rows.keys()].join()) list.replaceChildren(...wanted.values());
      rows = wanted;
      if (!rows.size) node.replaceChildren(el("p.empty", why));
      else if (!list.isConnected) node.replaceChildren(list);
    },
  };
}

/** A line of a list of events; what it holds is made when it is opened, and anew by `fill`. */
export function eventRow(made, isRaw = () => false) {
  const more = el("div");
  const ontoggle = () => details.open && more.replaceChildren(pretty(isRaw() ? made.raw : decoded(made)));
  const details = el("details", { ontoggle },
    el("summary",
      el("time", { datetime: made.at, title: made.at }, clock(made.at)),
      el("span.from", { title: made.type }, made.from || "–"),
      el("span.payload", made.text.slice(0, 300))),
    more);
  const row = el("li", details);
  row.fill = ontoggle;
  return row;
}
