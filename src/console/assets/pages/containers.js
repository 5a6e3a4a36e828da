// Container registries: their images and tags, and what they told last.

import { el, keep, link, show } from "../dom.js";
import { at, get, poll, session } from "../api.js";
import { eventList } from "../event.js";
import { list } from "../list.js";
import { ago, bytes, conditions, status, trouble } from "../show.js";

export function containers(page) {
  const columns = [
    ["Container registry", ({ id, name }) => link(name || id, "containers", id), "first"],
    ["Status", (registry) => status(registry.status)],
    ["Id", ({ id }) => el("span.mono", id)],
    ["Created", ({ createdAt }) => ago(createdAt)],
  ];
  const rows = list(page, "Container registries", columns, async (pageToken) => {
    const answer = await get("/container-registry/v1/registries", { folderId: session.folder, pageSize: 50, pageToken }, page.signal);
    return { rows: answer.registries, next: answer.nextPageToken };
  }, { every: 5000, empty: "There is no container registry. They are declared in config.yaml." });
  return [page.head("Containers"), el("section.card.flush", rows.node)];
}

export async function containerRegistry(page) {
  const [registryId] = page.named;
  const registry = await get(at`/container-registry/v1/registries/${registryId}`, {}, page.signal);
  const events = eventList("It has told nothing since the start.");
  const state = el("div");
  const columns = [
    ["Image", ({ name }) => el("span.mono", name), "first"],
    ["Tags", ({ tags = [] }) => (tags.length ? el("span.chips", tags.map((tag) => el("span.chip", tag))) : el("span.muted", "none"))],
    ["Digest", ({ digest = "" }) => el("span.mono", { title: digest }, digest.replace(/^(\w+:\w{12}).*$/, "$1…"))],
    ["Size", ({ compressedSize }) => (Number(compressedSize) ? bytes(compressedSize) : ""), "number"],
    ["Created", ({ createdAt }) => ago(createdAt, "")],
  ];
  const images = list(page, "Images", columns, async (pageToken) => {
    const answer = await get("/container-registry/v1/images", { registryId, pageSize: 50, pageToken }, page.signal);
    return { rows: answer.images, next: answer.nextPageToken };
  }, { empty: "No image is known yet." });
  poll(2000, page.signal, async () => {
    try {
      const does = await get(at`/triggercast/v1/containerRegistries/${registryId}/activity`, {}, page.signal);
      show(state, conditions(does.conditions));
      events.show(does.events);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      show(state, trouble(error));
    }
  });
  return [
    page.head(registry.name || registryId, { actions: [status(registry.status)] }), state,
    el("section.card.flush", el("h2", "Images"), images.node),
    el("section.card", el("h2", "Last events"), keep(events.node)),
  ];
}
