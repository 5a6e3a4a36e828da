// Who changed what, the newest first, with what was before and after.

import { el, keep, link } from "../dom.js";
import { get } from "../api.js";
import { pretty } from "../event.js";
import { list } from "../list.js";
import { ago } from "../show.js";

const shown = new Map();

/** Before and after of a line, which open; the same node each time, so that they stay open. */
function change({ id, before, after }) {
  if (!before && !after) return "";
  const side = (name, text) => {
    if (!text) return null;
    const more = el("div");
    const ontoggle = () => details.open && more.replaceChildren(pretty(text));
    const details = el("details", { ontoggle }, el("summary", name), more);
    return details;
  };
  if (!shown.has(id)) shown.set(id, keep(el("div", side("Before", before), side("After", after))));
  if (shown.size > 1000) shown.delete(shown.keys().next().value);
  return shown.get(id);
}

/** `package.TriggerService/Create` as "Create" and "Trigger". */
function words(method = "") {
  const [service, call] = method.split("/");
  return [call, service.split(".").at(-1).replace(/Service$/, "")];
}

export function audit(page) {
  const columns = [
    ["When", ({ createdAt }) => ago(createdAt), "first"],
    ["Who", ({ subjectId }) => subjectId],
    ["What", ({ method }) => {
      const [call, service] = words(method);
      return [el("strong", call), el("span.muted", { title: method }, ` ${service}`)];
    }],
    ["Resource", ({ resourceId, method = "" }) =>
      method.includes(".triggers.") && !method.endsWith("/Delete") ? link(resourceId, "triggers", resourceId) : el("span.mono", resourceId)],
    ["Change", change, "wide"],
  ];
  const search = el("input", { type: "search", placeholder: "Id of a resource", "aria-label": "Find by resource", oninput: () => rows.restart() });
  const rows = list(page, "Audit log", columns, async (pageToken) => {
    const answer = await get("/triggercast/v1/audit", { pageSize: 50, pageToken, resourceId: search.value.trim() }, page.signal);
    return { rows: answer.events, next: answer.nextPageToken };
  }, { every: 5000, empty: "Nobody has changed anything yet." });
  return [page.head("Audit log", { actions: [search] }), el("section.card.flush", rows.node)];
}
