// How the server does: what there is, what passes through it now and in the last ten minutes, and what does not work.

import { badge, el, keep, link, route, show } from "../dom.js";
import { all, get, poll, session } from "../api.js";
import { lags, line, rates } from "../chart.js";
import { table } from "../list.js";
import { bytes, conditions, count, lasting, rate, trouble } from "../show.js";

const KEPT = 300;

export function overview(page) {
  const { signal } = page;
  const events = line("Events per second", { signal, format: rate });
  const deliveries = line("Deliveries per second", { signal, format: rate, tone: "--line-2" });
  const connections = line("WebSocket connections", { signal, tone: "--line-3" });
  const lag = line("Lag from publish to socket, batch included", { signal, format: lasting, tone: "--line-2", least: 0.001 });
  const charts = keep(el("section.charts", { "aria-label": "The last ten minutes" }, events.node, deliveries.node, connections.node, lag.node));
  const body = el("div.stack", el("p.loading", { role: "status" }, "Loading…"));
  const names = new Map();
  let [rest, since] = [null, 0];
  let samples = [];
  let started = "";

  poll(2000, signal, async () => {
    let now;
    try {
      now = await get("/triggercast/v1/overview", { afterSample: samples.at(-1)?.number }, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (!error.isAbsent && error.status !== 403) return void show(body, trouble(error));
      if (Date.now() - since > 10_000) {
        rest = await without(signal);
        since = Date.now();
      }
      const why = el("p.note", "The overview is of the whole server, and takes the role viewer on the cloud. ", el("span.muted", error.message));
      return void show(body, error.isAbsent ? trouble(error) : why, rest);
    }
    if (started !== now.startedAt && started) samples = [];
    started = now.startedAt;
    samples = [...samples, ...(now.samples ?? [])].slice(-KEPT);
    const ids = (now.sources ?? []).flatMap(({ triggerIds = [] }) => triggerIds).filter((id) => !names.has(id));
    if (ids.length) await learn(names, ids, signal);
    show(body, tiles(now, samples), problems(now.problems), charts, el("div.columns", sources(now, names), gateways(now)));
    const times = samples.map(({ at }) => new Date(at) / 1000);
    events.show(times, rates(samples, "events"));
    deliveries.show(times, rates(samples, "deliveries"));
    lag.show(times, lags(samples));
    connections.show(times, samples.map(({ websocketConnections = 0 }) => Number(websocketConnections)));
  });
  return [page.head("Overview"), body];
}

/** Learns what triggers are called; those that may not be seen go by their ids. */
async function learn(names, ids, signal) {
  for (const id of ids) names.set(id, id);
  const list = await all("/triggers/v2/triggers", { folderId: session.folder }, "triggers", signal).catch(() => []);
  for (const { id, name } of list) names.set(id, name || id);
}

/** What other calls say of the folder. */
async function without(signal) {
  const of = async (title, path, name, to) => {
    const list = await all(path, { folderId: session.folder }, name, signal).catch(() => null);
    return list && tile(title, count(list.length), "in the folder", to);
  };
  return keep(el("div.tiles", await Promise.all([
    of("Triggers", "/triggers/v2/triggers", "triggers", "triggers"),
    of("Gateways", "/apigateways/v1/apigateways", "apiGateways", "gateways"),
    of("Device registries", "/iot-devices/v1/registries", "registries", "devices"),
    of("Container registries", "/container-registry/v1/registries", "registries", "containers"),
  ])));
}

const tile = (name, value, more, to) => {
  const inside = [el("span.name", name), el("span.value", value), el("span.more", more)];
  return to ? el("a.tile", { href: route(to) }, inside) : el("div.tile", inside);
};

function tiles({ totals = {}, journal = {}, problems = [], ...now }, samples) {
  const last = (name) => rate(rates(samples.slice(-2), name).at(-1) ?? 0);
  const all = Number(now.sourceCount ?? 0);
  const paths = Number(now.pathCount ?? 0);
  const web = Number(totals.websocketConnections ?? 0) + Number(totals.eventStreams ?? 0);
  const slow = Number(totals.slowClients ?? 0);
  return el("section.tiles", { "aria-label": "Now" },
    tile("Events/s", last("events"), `${count(totals.events)} in all`),
    tile("Deliveries/s", last("deliveries"), `${count(totals.deliveries)} in all`),
    // Of the last minute.
    tile("Lag", lasting(lags(samples.slice(-31)).findLast((lag) => lag !== null) ?? null), "from publish to socket"),
    tile("Connections", count(web), `${count(totals.mqttConnections)} MQTT${slow ? ` · ${count(slow)}× fell behind` : ""}`, "gateways"),
    tile("Triggers", count(now.activeTriggers), `${count(now.pausedTriggers)} paused`, "triggers"),
    tile("Sources", `${count(all - Number(now.failingSourceCount ?? 0))}/${count(all)}`, "working", "devices"),
    tile("Gateways", count(now.gatewayCount), `${count(paths)} path${paths === 1 ? "" : "s"}`, "gateways"),
    tile("Commit", journal.commitMean ? lasting(journal.commitMean) : "–", `on average · ${bytes(journal.size)} kept`),
    tile("Not delivered", count(totals.dropped), problems.length ? `${manyOf(problems)} problem${problems.length > 1 ? "s" : ""}` : "no problems"));
}

/** The server tells of so many problems at most. */
const manyOf = (problems) => (problems.length < 100 ? count(problems.length) : "100 or more");

function problems(list = []) {
  if (!list.length) return el("p.fine", { role: "status" }, "Everything works.");
  return el("section.card.trouble", el("h2", "What does not work"),
    list.map(({ what, condition }) => el("div.problem", el("h3", what), conditions([condition ?? {}]))));
}

function sources({ sources = [], sourceCount }, names) {
  const columns = [
    ["Source", ({ name }) => name],
    ["State", ({ conditions: why = [] }) => (why.length ? [badge("Failing", "bad"), conditions(why)] : badge("Working", "good"))],
    ["Triggers", ({ triggerIds = [] }) => el("span.chips", triggerIds.map((id) => link(names.get(id), "triggers", id)))],
  ];
  return el("section.card", el("h2", "Sources"), table("Sources", columns, sources, { key: ({ name }) => name, of: Number(sourceCount ?? 0), empty: "No source feeds a trigger yet." }));
}

function gateways({ gateways = [], pathCount }) {
  const rows = gateways.flatMap(({ gatewayId, paths = [] }) => paths.map((path) => ({ gatewayId, ...path })));
  const columns = [
    ["Path", ({ gatewayId, path }) => el("div", link(gatewayId, "gateways", gatewayId), el("span.mono", path))],
    ["Clients", ({ connections }) => count(connections), "number"],
    ["Events", ({ events }) => count(events), "number"],
    ["Batches", ({ batches }) => count(batches), "number"],
    ["", ({ gatewayId, path }) => el("a.button.small", { href: route("tail", gatewayId, path), "aria-label": `Tail ${gatewayId}${path}` }, "Tail")],
  ];
  return el("section.card", el("h2", "Paths"),
    table("Paths of gateways", columns, rows, { key: ({ gatewayId, path }) => gatewayId + path, of: Number(pathCount ?? 0), empty: "There is no gateway yet." }));
}
