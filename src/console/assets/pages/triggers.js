// All triggers of the folder, with what can be done to each.

import { button, confirm, el, link, route, toast } from "../dom.js";
import { at, change, get, session } from "../api.js";
import { list } from "../list.js";
import { batch, conditions, source, status, targets } from "../show.js";

const PATH = "/triggers/v2/triggers";

/** Pauses, or goes on. The promise is of whether it is done. */
export async function toggle(trigger) {
  const verb = trigger.status === "PAUSED" ? "resume" : "pause";
  return tell(verb === "pause" ? "paused" : "resumed", trigger, () => change("POST", `${at`/triggers/v2/triggers/${trigger.id}`}:${verb}`, {}));
}

export async function remove(trigger) {
  const name = trigger.name || trigger.id;
  const text = "Its open batch goes out. What it held while it was paused is forgotten. Clients stay connected.";
  if (!(await confirm(`Delete the trigger ${name}?`, text, "Delete"))) return false;
  return tell("deleted", trigger, () => change("DELETE", at`/triggers/v2/triggers/${trigger.id}`));
}

async function tell(done, trigger, act) {
  try {
    await act();
    toast(`Trigger ${trigger.name || trigger.id} is ${done}.`, "good");
    return true;
  } catch (error) {
    toast(error.message, "bad");
    return false;
  }
}

export const targetsOf = (trigger) =>
  targets(trigger).map(({ gatewayId, path }) =>
    el("div", link(gatewayId, "gateways", gatewayId), el("a.mono", { href: route("tail", gatewayId, path), title: "Live tail" }, path)));

export function triggers(page) {
  const and = (act) => (trigger) => async () => {
    if (await act(trigger)) rows.again();
  };
  const act = (trigger) => {
    const of = (verb) => ({ "aria-label": `${verb} ${trigger.name || trigger.id}`, class: "small" });
    const verb = trigger.status === "PAUSED" ? "Resume" : "Pause";
    return el("span.row-actions",
      button(verb, and(toggle)(trigger), of(verb)),
      el("a.button", { ...of("Edit"), href: route("triggers", trigger.id, "edit"), class: "button small" }, "Edit"),
      button("Delete", and(remove)(trigger), of("Delete")));
  };
  const columns = [
    ["Trigger", (trigger) => [link(trigger.name || trigger.id, "triggers", trigger.id), trigger.description && el("p.muted.clip", trigger.description)], "first"],
    ["Status", (trigger) => [status(trigger.status, trigger.conditions), conditions(trigger.conditions)]],
    ["Source", (trigger) => [el("span", source(trigger).name), el("p.mono.muted.clip", source(trigger).words.join(" · "))]],
    ["Batch", (trigger) => batch(source(trigger).settings)],
    ["Target", targetsOf],
    ["", act, "last"],
  ];
  const search = el("input", { type: "search", placeholder: "Exact name", "aria-label": "Find by name", oninput: () => rows.restart() });
  const rows = list(page, "Triggers", columns, async (pageToken) => {
    const name = search.value.replace(/["\\]/g, "").trim();
    const filter = name && `name="${name}"`;
    const answer = await get(PATH, { folderId: session.folder, pageSize: 50, pageToken, filter }, page.signal);
    return { rows: answer.triggers, next: answer.nextPageToken };
  }, { empty: "There is no such trigger. “Create trigger” makes one." });
  const create = el("a.button.main", { href: "#/triggers/new" }, "Create trigger");
  return [page.head("Triggers", { actions: [search, create] }), el("section.card.flush", rows.node)];
}
