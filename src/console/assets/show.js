// Numbers, times and states as people read them.

import { badge, el } from "./dom.js";

const whole = new Intl.NumberFormat("en");
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A count; the API writes large ones as text. */
export const count = (value) => whole.format(Number(value ?? 0));

export function rate(value) {
  return value >= 100 ? whole.format(Math.round(value)) : fine.format(value);
}

export function bytes(value) {
  let size = Number(value ?? 0);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024 || unit === "GiB") return `${fine.format(size)} ${unit}`;
    size /= 1024;
  }
}

/** Seconds of a duration such as "1.5s". */
export const seconds = (duration) => Number.parseFloat(duration ?? "0");

export function lasting(given) {
  const time = typeof given === "string" ? seconds(given) : given;
  if (time === null) return "–";
  if (time === 0) return "0";
  if (time < 0.001) return `${fine.format(time * 1e6)} µs`;
  if (time < 1) return `${fine.format(time * 1000)} ms`;
  if (time < 90) return `${fine.format(time)} s`;
  if (time < 5400) return `${Math.round(time / 60)} min`;
  if (time < 129600) return `${Math.round(time / 3600)} h`;
  return `${Math.round(time / 86400)} days`;
}

/** How long ago, with the moment as its title. */
export function ago(time, never = "never") {
  if (!time) return el("span.muted", never);
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return el("span", String(time));
  const past = Math.max(0, (Date.now() - date) / 1000);
  const text = past < 3 ? "just now" : past < 90 ? `${Math.round(past)} s ago` : `${lasting(past)} ago`;
  return el("time", { datetime: time, title: date.toLocaleString() }, text);
}

const clockTime = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });
const dayTime = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** A time in words; events may say anything where one should stand, and it is said again. */
const written = (format) => (time) => {
  if (!time) return "";
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : format.format(date);
};
export const clock = written(clockTime);
export const day = written(dayTime);

const KINDS = { ACTIVE: "good", PAUSED: "warn", STOPPED: "warn", DISABLED: "warn", ERROR: "bad" };

/** A status, or that something is in its way. */
export function status(word = "ACTIVE", conditions = []) {
  if (conditions.length && word !== "PAUSED") return badge("Failing", "bad");
  return badge(word[0] + word.slice(1).toLowerCase(), KINDS[word] ?? "");
}

/** Why something does not work. */
export const conditions = (list = []) =>
  list.map(({ reason, message, since }) =>
    el("p.condition", el("strong", reason), " ", message, since && [" · since ", day(since)]));

const SOURCES = { iotMessage: "Device registry", iotBrokerMessage: "Broker", containerRegistry: "Container registry" };
export const EVENT_TYPES = [
  ["CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE", "Create image"],
  ["CONTAINER_REGISTRY_EVENT_TYPE_DELETE_IMAGE", "Delete image"],
  ["CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE_TAG", "Create image tag"],
  ["CONTAINER_REGISTRY_EVENT_TYPE_DELETE_IMAGE_TAG", "Delete image tag"],
];

/** The kind of a trigger's source, its words, and its settings. */
export function source(trigger) {
  const [kind, settings] = Object.entries(trigger.source ?? {})[0] ?? ["", {}];
  const words = {
    iotMessage: [settings.registryId, settings.deviceId, settings.mqttTopic],
    iotBrokerMessage: [settings.brokerId, settings.mqttTopic],
    containerRegistry: [settings.registryId, settings.imageName, settings.tag],
  };
  return { kind, name: SOURCES[kind] ?? kind, settings, words: (words[kind] ?? []).filter(Boolean) };
}

/** Where a trigger's batches go. */
export const targets = (trigger) => (trigger.action ?? []).map((action) => action.gatewayWebsocketBroadcast).filter(Boolean);

export function batch({ batchSettings = {} }) {
  const { maxCount, maxBytes, cutoff } = batchSettings;
  const parts = [`${count(Number(maxCount) || 1)} event${Number(maxCount) > 1 ? "s" : ""}`];
  if (Number(maxBytes)) parts.push(bytes(maxBytes));
  return `${parts.join(" or ")} in ${seconds(cutoff) ? lasting(cutoff) : "1 s"}`;
}

/** What went wrong, for people; what a server does not have is no error. */
export const trouble = (error) =>
  error.isAbsent
    ? el("p.note", "Not available: this server does not tell. ", el("span.muted", error.message))
    : el("p.alert", { role: "alert" }, error.message);
