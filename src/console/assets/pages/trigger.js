// One trigger: how it is, what it does, why its batches close, its last events; and what can be done to it.

import { badge, button, dialog, el, keep, link, route, show } from "../dom.js";
import { at, call, get, poll } from "../api.js";
import { bar, bars, line, rates } from "../chart.js";
import { eventList, pretty, toBase64 } from "../event.js";
import { ago, batch, bytes, conditions, count, day, EVENT_TYPES, lasting, rate, seconds, source, status, trouble } from "../show.js";
import { remove, targetsOf, toggle } from "./triggers.js";

const KEPT = 300;

export async function trigger(page) {
  const [id] = page.named;
  const { signal } = page;
  let now = await get(at`/triggers/v2/triggers/${id}`, {}, signal);
  const chart = line("Events per second while you look", { signal, format: rate, span: 180 });
  const events = eventList("Nothing has come from it yet.");
  const about = el("section.card");
  const activity = el("section.stack", { "aria-label": "Activity" }, el("p.loading", { role: "status" }, "Loading…"));
  const actions = el("div.actions");
  const samples = [];
  const left = new AbortController();
  const isHere = AbortSignal.any([signal, left.signal]);

  /** What is said of a trigger that is no more. */
  const end = () => {
    left.abort();
    show(actions);
    show(about, el("p.note", "It was deleted. ", link("All triggers", "triggers")));
    activity.remove();
  };
  const draw = () => {
    const verb = now.status === "PAUSED" ? "Resume" : "Pause";
    show(actions,
      button(verb, async () => {
        if (await toggle(now)) again();
      }, { class: "main", id: "toggle" }),
      el("a.button", { href: route("triggers", id, "edit") }, "Edit"),
      button("Test…", () => test(now)),
      button("Delete…", async () => {
        if (await remove(now)) page.go("#/triggers");
      }));
    show(about, ...described(now));
  };
  draw();

  const again = poll(2000, isHere, async () => {
    try {
      now = await get(at`/triggers/v2/triggers/${id}`, {}, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.status === 404) return end();
      show(about, ...described(now, error.status === 403 ? "Not to be seen" : "Not known just now"));
      return void show(activity, trouble(error));
    }
    try {
      draw();
      const does = await get(at`/triggercast/v1/triggers/${id}/activity`, { eventCount: 20 }, signal);
      const all = does.actions ?? [];
      samples.push({ at: new Date().toISOString(), events: all.reduce((sum, { events = 0 }) => sum + Number(events), 0) });
      samples.splice(0, samples.length - KEPT);
      events.show(does.events, does.eventsWithheld && "You may not see what its source says.");
      show(activity, conditions(does.conditions), el("div.columns", all.map(performed), keep(chartCard)), keep(lastCard));
      chart.show(samples.map((sample) => new Date(sample.at) / 1000), rates(samples, "events"));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      show(activity, trouble(error));
    }
  });
  const chartCard = el("div.card", chart.node);
  const lastCard = el("div.card", el("h2", "Last events"), events.node);
  return [page.head(now.name || id, { about: now.description, actions: [actions] }), about, activity];
}

function described(trigger, unknown = "") {
  const { name, settings } = source(trigger);
  const kinds = (settings.eventType ?? []).map((type) => EVENT_TYPES.find(([word]) => word === type)?.[1] ?? type);
  const line = (term, value) => value && el("div", el("dt", term), el("dd", value));
  const place = settings.brokerId ?? settings.registryId;
  const labels = Object.entries(trigger.labels ?? {}).map(([key, value]) => el("span.chip", value ? `${key}=${value}` : key));
  return [
    el("dl.facts.wide",
      line("Status", unknown ? badge(unknown, "warn") : status(trigger.status, trigger.conditions)),
      line("Source", [name, " ", place && (settings.brokerId ? place : link(place, kinds.length ? "containers" : "devices", place))]),
      line("Device", settings.deviceId),
      line("MQTT topic", settings.mqttTopic && el("span.mono", settings.mqttTopic)),
      line("Events", kinds.join(", ")),
      line("Image", settings.imageName && el("span.mono", settings.imageName)),
      line("Tag", settings.tag && el("span.mono", settings.tag)),
      line("Batch", batch(settings)),
      line("Target", targetsOf(trigger)),
      line("While paused", trigger.onPause === "DROP" ? "events are not sent" : "events are kept"),
      line("Created", day(trigger.createdAt)),
      line("Labels", labels.length > 0 && el("span.chips", labels))),
    !unknown && conditions(trigger.conditions),
    (trigger.action ?? []).map(({ filter, transformer }) => [
      filter && el("div", el("h2", "Filter"), el("pre.mono", filter.jq)),
      transformer && el("div", el("h2", "Transformer"), el("pre.mono", transformer.jq)),
    ]),
  ];
}

/** What one of its actions does. */
function performed({ gatewayId, path, events = 0, batches = 0, closed = {}, ...now }) {
  const open = Number(now.openEvents ?? 0);
  const most = Number(now.maxEvents ?? 1);
  const part = Math.max(open / most, Number(now.maxBytes) ? Number(now.openBytes ?? 0) / Number(now.maxBytes) : 0);
  const left = now.closesAt ? Math.max(0, (new Date(now.closesAt) - Date.now()) / 1000) : null;
  const said = open ? `${count(open)} of ${count(most)} events, ${bytes(now.openBytes)}` : "empty";
  const each = Number(batches) ? rate(Number(events) / Number(batches)) : "–";
  return el("div.card",
    el("h2", link(gatewayId, "gateways", gatewayId), el("span.mono", path)),
    el("dl.facts",
      el("dt", "Events"), el("dd", count(events)),
      el("dt", "Batches"), el("dd", `${count(batches)}, of ${each} events`),
      el("dt", "Last batch"), el("dd", ago(now.lastBatchAt))),
    el("h3", "Open batch"), bar(part),
    el("p.muted", said, open && left !== null ? ` · closes within ${lasting(left)}` : ` · closes ${lasting(seconds(now.cutoff))} after its first event`),
    el("h3", "Why batches close"),
    Object.values(closed).some(Number) ? bars(closed) : el("p.empty", "None has closed yet."));
}

/** An event as the trigger's source would make it. */
function example(trigger) {
  const { kind, settings } = source(trigger);
  const about = { event_id: "00000000-0000-7000-8000-000000000000", created_at: new Date().toISOString() };
  if (kind === "containerRegistry") {
    const [type] = settings.eventType ?? [];
    const name = (EVENT_TYPES.find(([word]) => word === type)?.[1] ?? "Create image").split(" ").map((word) => word[0].toUpperCase() + word.slice(1)).join("");
    return {
      event_metadata: { ...about, event_type: `yandex.cloud.events.containerregistry.${name}` },
      details: { registry_id: settings.registryId, repository_name: `${settings.registryId}/web/shop`, tag: "v1", image_digest: "sha256:00" },
    };
  }
  const [first, second] = kind === "iotMessage" ? ["registry_id", settings.registryId] : ["broker_id", settings.brokerId];
  const device = settings.deviceId ?? "press-1";
  return {
    event_metadata: { ...about, event_type: "yandex.cloud.events.iot.IoTMessage" },
    details: {
      [first]: second,
      ...(kind === "iotMessage" && { device_id: device }),
      mqtt_topic: (settings.mqttTopic ?? `$devices/${device}/events`).replace(/[+#]/g, device),
      payload: toBase64('{"temperature":21}'),
    },
  };
}

function test(trigger) {
  return dialog(`Test ${trigger.name || trigger.id}`, (close) => {
    const input = el("textarea", { rows: 12, spellcheck: "false", class: "mono", value: JSON.stringify(example(trigger), null, 2), id: "test-event" });
    const results = el("div", { role: "status" });
    const run = async () => {
      try {
        const { actions = [] } = await call("POST", "/triggercast/v1/triggers:test", { body: { triggerId: trigger.id, event: input.value } });
        show(results, actions.map((action, at) => result(action, at, trigger)));
      } catch (error) {
        show(results, trouble(error));
      }
    };
    return [
      el("p.muted", "What would become of this event? Nothing is sent."),
      el("label", { for: "test-event" }, "Event"), input, results,
      el("div.buttons", button("Close", () => close()), button("Test", run, { class: "main" })),
    ];
  });
}

function result({ sent, reason, event, message }, at, trigger) {
  const { gatewayId = "", path = "" } = trigger.action?.[at]?.gatewayWebsocketBroadcast ?? {};
  return el("div.result",
    el("p", el("strong", sent ? "Sent" : "Not sent"), ` to ${gatewayId}${path}`, reason && `: ${reason}`),
    event && pretty(event), message && el("p.muted", `A message of ${bytes(new TextEncoder().encode(message).length)}, if it is alone in its batch.`));
}
