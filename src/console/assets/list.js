// Tables, and lists that come in pages: with words for what is loading, empty or wrong. On a narrow screen rows become cards.

import { button, el, keep, show } from "./dom.js";
import { poll } from "./api.js";
import { count, trouble } from "./show.js";

/** Most rows of a table: more are too many to read, and to keep fresh. */
export const MOST = 200;

/** A table. Columns are `[name, (row) => content, class]`; `key` tells rows apart, and there are `of` so many in all. */
export function table(caption, columns, all, { key = (row) => row.id, empty = "Nothing here.", of = all.length } = {}) {
  if (!all.length) return el("p.empty", empty);
  const rows = all.slice(0, MOST);
  const head = columns.map(([name, , kind = ""]) =>
    name ? el("th", { scope: "col", role: "columnheader", class: kind || null }, name) : el("td", { role: "cell" }));
  const line = (row) => el("tr", { "data-key": key(row), role: "row" }, columns.map(([name, cell, kind = ""]) =>
    el("td", { "data-label": name, class: kind || null, role: "cell" }, cell(row))));
  return [
    el("div.scroll",
      el("table", { role: "table", "aria-label": caption },
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
        el("tbody", { role: "rowgroup" }, rows.map(line)))),
    of > rows.length && el("p.cut", `The first ${count(rows.length)} of ${count(of)}.`),
  ];
}

/** A list that is asked for in pages and kept fresh. `load(token)` gives `{ rows, next }`. */
export function list(page, caption, columns, load, { every = 2000, ...more } = {}) {
  const node = keep(el("div.list", el("p.loading", { role: "status" }, "Loading…")));
  const before = [];
  let token = "";
  let next = "";
  const turn = (change) => () => {
    change();
    again();
  };
  const draw = ({ rows = [], next: following = "" }) => {
    next = following;
    const many = before.length || next;
    const paging = many && el("div.paging",
      button("Previous", turn(() => (token = before.pop() ?? "")), { disabled: !before.length }),
      el("span.muted", `Page ${before.length + 1}`),
      button("Next", turn(() => {
        before.push(token);
        token = next;
      }), { disabled: !next }));
    show(node, table(caption, columns, rows, more), paging);
  };
  const again = poll(every, page.signal, async () => {
    const asked = token;
    try {
      const answer = await load(asked);
      if (asked === token) draw(answer);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      show(node, trouble(error), el("div.buttons", button("Try again", () => again())));
    }
  });
  return {
    node,
    again,
    restart: () => {
      before.length = 0;
      token = "";
      again();
    },
  };
}
