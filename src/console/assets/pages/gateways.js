// Gateways: their paths, what passes through them, and the doors to who is connected.

import { button, el, link, route, show } from "../dom.js";
import { at, get, pathsOf, poll, session } from "../api.js";
import { list, MOST, table } from "../list.js";
import { ago, count, status, trouble } from "../show.js";
import { broadcast, connections, disconnectAll } from "./connections.js";

export function gateways(page) {
  const columns = [
    ["Gateway", ({ id, name, description }) => [link(name || id, "gateways", id), description && el("p.muted.clip", description)], "first"],
    ["Status", (gateway) => status(gateway.status)],
    ["Id", ({ id }) => el("span.mono", id)],
    ["Domain", ({ domain }) => domain || el("span.muted", "none")],
    ["Created", ({ createdAt }) => ago(createdAt)],
  ];
  const rows = list(page, "Gateways", columns, async (pageToken) => {
    const answer = await get("/apigateways/v1/apigateways", { folderId: session.folder, pageSize: 50, pageToken }, page.signal);
    return { rows: answer.apiGateways, next: answer.nextPageToken };
  }, { every: 5000, empty: "There is no gateway yet. They are declared in config.yaml, or made by the command line and the API." });
  return [page.head("Gateways"), el("section.card.flush", rows.node)];
}

export async function gateway(page) {
  const [id] = page.named;
  const { signal } = page;
  const known = await get(at`/apigateways/v1/apigateways/${id}`, {}, signal);
  const paths = el("div", el("p.loading", { role: "status" }, "Loading…"));
  const find = el("input", { type: "search", placeholder: "Part of a path", "aria-label": "Find paths", hidden: true, oninput: () => again() });
  const who = connections(page, id);
  const columns = [
    ["Path", ({ path }) => el("span.mono", path), "first"],
    ["Clients", (path) => count(path.connections), "number"],
    ["Events", ({ events }) => count(events), "number"],
    ["Batches", ({ batches }) => count(batches), "number"],
    ["", ({ path }) => el("span.row-actions",
      el("a.button.small", { href: route("tail", id, path), "aria-label": `Tail ${path}` }, "Tail"),
      button("Broadcast…", () => broadcast(id, path), { class: "small", "aria-label": `Broadcast to ${path}` }),
      button("Disconnect…", async () => {
        if (await disconnectAll(id, path)) who.again();
      }, { class: "small", "aria-label": `Disconnect all of ${path}` })), "last"],
  ];
  const again = poll(2000, signal, async () => {
    try {
      const all = await pathsOf(id, signal);
      const wanted = find.value.trim();
      find.hidden = all.length <= MOST;
      show(paths, table("Paths", columns, all.filter(({ path }) => path.includes(wanted)), {
        key: ({ path }) => path, empty: wanted ? "No path has this in it." : "It has no path now.",
      }));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      show(paths, trouble(error));
    }
  });
  const actions = [status(known.status)];
  return [
    page.head(known.name || id, { about: known.description ?? known.domain, actions }),
    el("section.card.flush", el("div.card-head", el("h2", "Paths"), find), paths),
    el("section.card.flush", el("div.card-head", el("h2", "Connections"), who.search), who.node),
  ];
}
