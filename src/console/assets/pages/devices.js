// Device registries and brokers, and what the devices of a registry said last.

import { badge, el, link } from "../dom.js";
import { all, at, get, session } from "../api.js";
import { fromBase64, readable } from "../event.js";
import { list } from "../list.js";
import { ago, bytes, clock, count, status } from "../show.js";

const about = ({ description }) => description && el("p.muted.clip", description);

function resources(page, caption, path, name, first, empty) {
  const columns = [
    [caption.replace(/s$/, "").replace(/ie$/, "y"), first, "first"],
    ["Status", (row) => status(row.status)],
    ["Id", ({ id }) => el("span.mono", id)],
    ["Created", ({ createdAt }) => ago(createdAt)],
  ];
  const rows = list(page, caption, columns, async (pageToken) => {
    const answer = await get(path, { folderId: session.folder, pageSize: 50, pageToken }, page.signal);
    return { rows: answer[name], next: answer.nextPageToken };
  }, { every: 5000, empty });
  return el("section.card.flush", el("h2", caption), rows.node);
}

export function devices(page) {
  return [
    page.head("Devices"),
    resources(page, "Registries", "/iot-devices/v1/registries", "registries",
      (row) => [link(row.name || row.id, "devices", row.id), about(row)], "There is no registry yet."),
    resources(page, "Brokers", "/iot-broker/v1/brokers", "brokers", (row) => [row.name || row.id, about(row)], "There is no broker."),
  ];
}

export async function deviceRegistry(page) {
  const [registryId] = page.named;
  const registry = await get(at`/iot-devices/v1/registries/${registryId}`, {}, page.signal);
  const aliases = ({ topicAliases = {} }) =>
    Object.entries(topicAliases).map(([alias, topic]) => el("p.mono.muted.clip", { title: topic }, `${alias} = ${topic}`));
  const columns = [
    ["Device", (device) => [el("span", device.name || device.deviceId), about(device), aliases(device)], "first"],
    ["State", ({ connected, isKnown }) => isKnown && badge(connected ? "Connected" : "Away", connected ? "good" : "")],
    ["Last seen", ({ lastSeenAt, isKnown }) => isKnown && ago(lastSeenAt, "not since the start")],
    ["Messages", ({ messages, isKnown }) => isKnown && count(messages), "number"],
    ["Last messages", ({ lastMessages = [] }) => (lastMessages.length ? el("ul.said", lastMessages.map(said)) : el("span.muted", "none")), "wide"],
  ];
  let absent = "";
  const note = el("p.note", { hidden: true });
  const rows = list(page, "Devices", columns, async (pageToken) => {
    const known = await names(registryId, page.signal);
    try {
      const answer = await get(at`/triggercast/v1/registries/${registryId}/devices/activity`, { pageSize: 50, pageToken }, page.signal);
      const all = (answer.devices ?? []).map((device) => ({ ...known.get(device.deviceId), ...device, isKnown: true }));
      return { rows: all, next: answer.nextPageToken };
    } catch (error) {
      if (!error.isAbsent) throw error;
      absent = error.message;
      note.hidden = false;
      note.textContent = `What devices do is not available: this server does not tell. ${absent}`;
      return { rows: [...known.values()].map((device) => ({ ...device, deviceId: device.id })) };
    }
  }, { key: ({ deviceId }) => deviceId, empty: "The registry has no devices yet." });
  return [page.head(registry.name || registryId, { about: registry.description, actions: [status(registry.status)] }), note,
    el("section.card.flush", el("h2", "Devices"), rows.node)];
}

const known = { at: 0, of: "", names: new Map() };

/** Names and aliases of devices; they change seldom, so they are asked for each half minute only. */
async function names(registryId, signal) {
  if (known.of !== registryId || Date.now() - known.at > 30000) {
    const list = await all("/iot-devices/v1/devices", { registryId }, "devices", signal);
    Object.assign(known, { at: Date.now(), of: registryId, names: new Map(list.map((device) => [device.id, device])) });
  }
  return known.names;
}

function said({ topic, at: when, payload, payloadSize }) {
  const data = fromBase64(payload);
  const { text } = readable(data);
  const cut = Number(payloadSize ?? 0) > data.length && ` … ${bytes(payloadSize)}`;
  return el("li", el("time.muted", { datetime: when }, clock(when)), " ", el("span.mono.muted", topic), " ", el("code", text.slice(0, 400), cut));
}
