// Makes a trigger, or changes one: the three kinds of sources, batches, and up to five targets. What the server finds wrong stands at its field.

import { button, el, field, keep, route, select, show, toast } from "../dom.js";
import { all, at, change, get, pathsOf, session } from "../api.js";
import { EVENT_TYPES, seconds, source } from "../show.js";

const MOST_TARGETS = 5;
const KINDS = [
  ["iotMessage", "Device registry", "iot_message"],
  ["iotBrokerMessage", "Broker", "iot_broker_message"],
  ["containerRegistry", "Container registry", "container_registry"],
];
const ENCODINGS = [["BASE64", "Base64"], ["TEXT", "Text"], ["JSON", "JSON"]];
const PAUSES = [["HOLD", "Keep events and send them later"], ["DROP", "Do not send events"]];

const text = (value, more = {}) => el("input", { type: "text", value: value ?? "", spellcheck: "false", autocomplete: "off", ...more });
/** Nothing to choose from, and why. */
const unseen = ({ message }) => Object.assign([], { fault: message });
const named = (list) => list.map(({ id, name }) => [id, name && name !== id ? `${name} (${id})` : id]);

export async function triggerForm(page) {
  const [id] = page.named;
  const folderId = session.folder;
  const names = (path, query, list) => all(path, query, list, page.signal).catch(unseen);
  const [known, registries, brokers, images, gateways, accounts] = await Promise.all([
    id ? get(at`/triggers/v2/triggers/${id}`, {}, page.signal) : {},
    names("/iot-devices/v1/registries", { folderId }, "registries"),
    names("/iot-broker/v1/brokers", { folderId }, "brokers"),
    names("/container-registry/v1/registries", { folderId }, "registries"),
    names("/apigateways/v1/apigateways", { folderId }, "apiGateways"),
    names("/iam/v1/serviceAccounts", { folderId }, "serviceAccounts"),
  ]);
  const old = source(known);
  const asked = new Map();
  const paths = (gatewayId) => {
    if (!asked.has(gatewayId)) asked.set(gatewayId, pathsOf(gatewayId, page.signal).catch(() => []));
    return asked.get(gatewayId);
  };

  const name = field("Name", text(known.name, { maxlength: 63 }), { path: "name", hint: "3 to 63 characters: lower-case letters, digits and “-”; a letter first." });
  const description = field("Description", el("textarea", { rows: 2, maxlength: 500, value: known.description ?? "" }), { path: "description", hint: "At most 500 characters." });
  const labels = field("Labels", text(Object.entries(known.labels ?? {}).map((pair) => pair.join("=")).join(", ")), { path: "labels", hint: "key=value, key=value; at most 64." });
  const pause = field("While it is paused", select(PAUSES, known.onPause === "DROP" ? "DROP" : "HOLD"), { path: "on_pause" });
  const inputs = { iotMessage: iot(page, registries, old), iotBrokerMessage: broker(brokers, old), containerRegistry: container(images, old) };

  const { batchSettings = {} } = old.settings;
  const number = (value, more) => el("input", { type: "number", value, inputmode: "decimal", ...more });
  const batch = (last) => `source.${KINDS.find(([kind]) => kind === chosen())[2]}.batch_settings.${last}`;
  const size = field("Batch size", number(Number(batchSettings.maxCount) || 1, { min: 1, max: 1000, step: 1, required: true }), { hint: "Events: 1 to 1,000." });
  const cutoff = field("Cutoff", number(seconds(batchSettings.cutoff) || 1, { min: 0, max: 60, step: "any", required: true }), { hint: "Seconds from the first event: up to 60; 0 stands for 1." });
  const most = field("Batch bytes", number(Number(batchSettings.maxBytes) || "", { min: 1, max: 65536, step: 1 }), { hint: "1 to 65,536. Empty: as many as the gateway's messages hold." });

  const radios = el("fieldset.choice.kinds", el("legend", "Type"), KINDS.map(([kind, words]) =>
    el("label", el("input", { type: "radio", name: "kind", value: kind, checked: kind === (old.kind || "iotMessage"), onchange: () => turn() }), words)));
  const chosen = () => radios.querySelector(":checked").value;
  const kindPlace = el("div.grid");
  const turn = () => kindPlace.replaceChildren(...inputs[chosen()].fields);
  turn();

  const targets = [];
  const targetPlace = el("div.stack");
  const more = button("Add a target", () => add({}), { class: "small" });
  const add = (action) => {
    const made = target(action, { gateways, accounts, paths });
    made.remove.onclick = () => {
      targets.splice(targets.indexOf(made), 1);
      place();
    };
    targets.push(made);
    place();
  };
  const place = () => {
    targetPlace.replaceChildren(...targets.map((made) => made.node));
    for (const made of targets) made.remove.hidden = targets.length === 1;
    more.hidden = targets.length === MOST_TARGETS;
  };
  for (const action of known.action ?? [{}]) add(action);

  const summary = el("div", { role: "alert" });
  const send = el("button.main", { type: "submit" }, id ? "Save" : "Create trigger");

  const value = () => {
    const count = Number(size.input.value);
    const batchSettings = { maxCount: String(count), cutoff: `${Number(cutoff.input.value)}s` };
    if (most.input.value) batchSettings.maxBytes = most.input.value;
    return {
      name: name.input.value.trim(),
      description: description.input.value,
      labels: Object.fromEntries(pairs(labels.input.value)),
      source: { [chosen()]: { ...inputs[chosen()].value(), batchSettings } },
      action: targets.map((made) => made.value()),
      onPause: pause.input.value,
    };
  };
  const fields = () => [name, description, labels, pause, ...inputs[chosen()].fields, size, cutoff, most, ...targets.flatMap((made) => made.fields)];
  const prepare = () => {
    size.path = batch("max_count");
    cutoff.path = batch("cutoff");
    most.path = batch("max_bytes");
    targets.forEach((made, at) => made.number(at));
  };

  let loaded = {};
  /** Names of what differs from what was loaded. */
  const changes = () => Object.entries(value()).filter(([name, value]) => JSON.stringify(value) !== loaded[name]).map(([name]) => name);
  const done = (id, words, kind) => {
    page.isChanged = () => false;
    toast(words, kind);
    page.go(route("triggers", id));
  };
  const onsubmit = async (event) => {
    event.preventDefault();
    prepare();
    show(summary);
    if (!check(fields())) return;
    const changed = changes();
    if (id && !changed.length) return done(id, "Nothing was changed.");
    send.disabled = true;
    try {
      const made = id
        ? await change("PATCH", at`/triggers/v2/triggers/${id}`, { ...value(), updateMask: changed.join() })
        : await change("POST", "/triggers/v2/triggers", { ...value(), folderId });
      done(made.id, `Trigger ${made.name || made.id} is ${id ? "changed" : "created"}.`, "good");
    } catch (error) {
      complain(fields(), error, summary);
    } finally {
      send.disabled = false;
    }
  };
  const form = el("form.stack", { onsubmit, novalidate: true },
    el("section.card", el("h2", "Trigger"), el("div.grid", name, labels), description),
    el("section.card", el("h2", "Source"), radios, kindPlace),
    el("section.card", el("h2", "Batch"), el("div.grid", size, cutoff, most)),
    el("section.card", el("h2", "Targets"), targetPlace, more),
    el("section.card", el("div.grid", pause)),
    summary,
    el("div.buttons", el("a.button", { href: id ? `#/triggers/${encodeURIComponent(id)}` : "#/triggers" }, "Cancel"), send));
  loaded = Object.fromEntries(Object.entries(value()).map(([name, value]) => [name, JSON.stringify(value)]));
  page.isChanged = () => changes().length > 0;
  return [page.head(id ? `Edit ${known.name || id}` : "Create trigger"), form];
}

/** `a=b, c` as pairs. */
function pairs(words) {
  return words.split(",").map((word) => word.trim()).filter(Boolean).map((word) => {
    const [key, ...value] = word.split("=");
    return [key.trim(), value.join("=").trim()];
  });
}

/** Asks the browser what is wrong, says it at the fields, and goes to the first. */
function check(fields) {
  let first = null;
  for (const field of fields) {
    const { input } = field;
    const wrong = input?.validity && !input.validity.valid ? input.validationMessage : field.check?.() ?? "";
    field.complain(wrong);
    if (wrong) first ??= input;
  }
  reveal(first);
  return !first;
}

/** Goes to an input, also to one that is folded away. */
function reveal(input) {
  const folded = input?.closest("details");
  if (folded) folded.open = true;
  input?.focus();
}

/** Puts what the API says at the fields that it names, and the rest above the buttons. */
function complain(fields, error, summary) {
  const rest = [];
  let first = null;
  for (const { field: path, description } of error.fields ?? []) {
    const fits = fields.filter((field) => field.path && (path === field.path || path.startsWith(`${field.path}[`) || path.startsWith(`${field.path}.`)));
    const [field] = fits.sort((a, b) => b.path.length - a.path.length);
    if (field) field.complain(description);
    else rest.push(path ? `${path}: ${description}` : description);
    first ??= field?.input;
  }
  if (!error.fields?.length) rest.push(error.message);
  show(summary, rest.map((words) => el("p.alert", words)));
  reveal(first);
}

const need = (list, what) => (list.length ? [["", `Choose ${what}`], ...named(list)] : [["", list.fault ?? `There is no ${what.replace(/^an? /, "")}`]]);

function iot(page, registries, { kind, settings }) {
  const own = kind === "iotMessage" ? settings : {};
  const registry = field("Registry", select(need(registries, "a registry"), own.registryId ?? (registries.length === 1 ? registries[0].id : ""), { required: true, onchange: () => load() }), { path: "source.iot_message.registry_id" });
  const device = field("Device", select([["", "All devices"]], own.deviceId ?? ""), { path: "source.iot_message.device_id", hint: "Only what this device publishes." });
  const topic = field("MQTT topic", text(own.mqttTopic, { placeholder: "$devices/+/events" }), { path: "source.iot_message.mqtt_topic", hint: "With “+” and “#”, or an alias. Empty: all topics." });
  const offer = (list, value) => {
    device.input.replaceChildren(...select([["", "All devices"], ...named(list)], value).childNodes);
    device.input.value = value;
  };
  let offered = own.registryId;
  const load = async () => {
    const registryId = registry.input.value;
    if (registryId !== offered) offer([], registryId === own.registryId ? own.deviceId ?? "" : "");
    offered = registryId;
    const list = registryId ? await all("/iot-devices/v1/devices", { registryId }, "devices", page.signal).catch(unseen) : [];
    if (registryId !== offered) return;
    offer(list, device.input.value);
    device.complain(list.fault ?? "");
  };
  load();
  const value = () => ({ registryId: registry.input.value, deviceId: device.input.value, mqttTopic: topic.input.value.trim() });
  return { fields: [registry, device, topic], value };
}

function broker(brokers, { kind, settings }) {
  const own = kind === "iotBrokerMessage" ? settings : {};
  const id = field("Broker", select(need(brokers, "a broker"), own.brokerId ?? "", { required: true }), { path: "source.iot_broker_message.broker_id" });
  const topic = field("MQTT topic", text(own.mqttTopic, { placeholder: "hall/+/temperature" }), { path: "source.iot_broker_message.mqtt_topic", hint: "With “+” and “#”. Empty: all topics." });
  return { fields: [id, topic], value: () => ({ brokerId: id.input.value, mqttTopic: topic.input.value.trim() }) };
}

function container(registries, { kind, settings }) {
  const own = kind === "containerRegistry" ? settings : {};
  const base = "source.container_registry";
  const registry = field("Container registry", select(need(registries, "a registry"), own.registryId ?? (registries.length === 1 ? registries[0].id : ""), { required: true }), { path: `${base}.registry_id` });
  const image = field("Image name", text(own.imageName, { placeholder: "web/shop" }), { path: `${base}.image_name`, hint: "Empty: all images." });
  const tag = field("Image tag", text(own.tag, { placeholder: "latest" }), { path: `${base}.tag`, hint: "Empty: all tags." });
  const wanted = own.eventType ?? EVENT_TYPES.map(([type]) => type);
  const boxes = EVENT_TYPES.map(([type, words]) => {
    const box = el("input", { type: "checkbox", value: type, checked: wanted.includes(type), "aria-describedby": "types-wrong" });
    return { box, node: el("label", box, words) };
  });
  const wrong = el("small.wrong", { hidden: true, id: "types-wrong" });
  const types = el("fieldset.choice.wide", el("legend", "Event types"), boxes.map(({ node }) => node), wrong);
  const chosen = () => boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
  types.input = boxes[0].box;
  types.path = `${base}.event_type`;
  types.check = () => (chosen().length ? "" : "Choose at least one.");
  types.complain = (words) => {
    wrong.textContent = words;
    wrong.hidden = !words;
    for (const { box } of boxes) box.setAttribute("aria-invalid", String(Boolean(words)));
  };
  const value = () => ({ registryId: registry.input.value, imageName: image.input.value.trim(), tag: tag.input.value.trim(), eventType: chosen() });
  return { fields: [registry, types, image, tag], value };
}

let lists = 0;

/** One target: a gateway's path, in whose name, and what is done to events before. */
function target(action, { gateways, accounts, paths }) {
  const own = action.gatewayWebsocketBroadcast ?? {};
  const base = "gateway_websocket_broadcast";
  const listId = `paths-${(lists += 1)}`;
  const known = el("datalist", { id: listId });
  const offer = async () => {
    const id = gateway.input.value;
    const list = id ? await paths(id) : [];
    if (id === gateway.input.value) known.replaceChildren(...list.map(({ path }) => el("option", { value: path })));
  };
  const gateway = field("API gateway", select(need(gateways, "a gateway"), own.gatewayId ?? (gateways.length === 1 ? gateways[0].id : ""), { required: true, onchange: () => offer() }));
  const path = field("Path", text(own.path, { required: true, list: listId, placeholder: "/ws" }), { hint: "A WebSocket path of the gateway." });
  const first = accounts.find(({ id }) => id === "broadcaster")?.id ?? "";
  const account = field("Service account", select(need(accounts, "a service account"), own.serviceAccountId ?? first, { required: true }), { hint: "It needs the role api-gateway.websocketBroadcaster." });
  const encoding = field("Payloads as", select(ENCODINGS, action.payloadEncoding ?? "BASE64"));
  const filter = field("Filter", text(action.filter?.jq, { class: "mono", maxlength: 1024, placeholder: ".details.payload.temperature > 30" }), { hint: "jq: events for which it is true are sent. Empty: all." });
  const transformer = field("Transformer", el("textarea", { class: "mono", rows: 2, spellcheck: "false", maxlength: 65536, value: action.transformer?.jq ?? "" }), { hint: "jq: what stands in the message in place of the event. Empty: the event." });
  offer();
  const changed = action.filter || action.transformer || (action.payloadEncoding && action.payloadEncoding !== "BASE64");
  const remove = button("Remove", null, { class: "small" });
  const fields = [gateway, path, account, encoding, filter, transformer];
  const node = el("fieldset.target",
    el("legend", "Target"), el("div.grid", gateway, path, account), known,
    el("details", { open: Boolean(changed) }, el("summary", "Filter and transform"), el("div.grid", encoding, filter), transformer),
    remove);
  return {
    node: keep(node),
    fields,
    remove,
    number: (at) => {
      const names = [`${base}.gateway_id`, `${base}.path`, `${base}.service_account_id`, "payload_encoding", "filter", "transformer"];
      names.forEach((name, n) => (fields[n].path = `action[${at}].${name}`));
    },
    value: () => {
      const made = {
        gatewayWebsocketBroadcast: { gatewayId: gateway.input.value, path: path.input.value.trim(), serviceAccountId: account.input.value },
        payloadEncoding: encoding.input.value,
      };
      if (filter.input.value.trim()) made.filter = { jq: filter.input.value.trim() };
      if (transformer.input.value.trim()) made.transformer = { jq: transformer.input.value.trim() };
      return made;
    },
  };
}
