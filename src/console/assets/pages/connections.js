// Who is connected to a gateway, and what can be done to them: send, broadcast, close.

import { badge, button, confirm, dialog, el, field, select, show, toast } from "../dom.js";
import { at, call, get } from "../api.js";
import { toBase64 } from "../event.js";
import { list } from "../list.js";
import { ago, bytes, count, trouble } from "../show.js";

const KINDS = [["TEXT", "Text"], ["BINARY", "Binary, of the text's bytes"]];

const BYTE = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = new RegExp(`^${BYTE}(\\.${BYTE}){3}$`);

/** Whether it is a whole address or network; one that is still typed is none. */
function isAddress(words) {
  const [address, bits, ...more] = words.split("/");
  const isFour = IPV4.test(address);
  const hasBits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (isFour ? 32 : 128));
  return !more.length && hasBits && (isFour || (address.includes(":") && URL.canParse(`ws://[${address}]`)));
}

/** The list of a gateway's connections. */
export function connections(page, gatewayId) {
  const columns = [
    ["Connection", ({ id, path }) => [el("span.mono.clip", { title: id }, id), el("p.mono.muted", path)], "first"],
    ["Who", ({ subject, identity = {} }) => [el("span", identity.sourceIp), subject && el("p", subject), el("p.muted.clip", { title: identity.userAgent }, identity.userAgent)]],
    ["Since", ({ connectedAt }) => ago(connectedAt)],
    ["Active", ({ lastActiveAt }) => ago(lastActiveAt)],
    ["Queue", ({ waitingBytes = 0, behind }) => [bytes(waitingBytes), " ", behind && badge("Behind", "warn")], "number"],
    ["", (connection) => el("span.row-actions",
      button("Send…", () => sendTo(connection), { class: "small", "aria-label": `Send to ${connection.id}` }),
      button("Disconnect", async () => {
        if (await disconnect(connection)) rows.again();
      }, { class: "small", "aria-label": `Disconnect ${connection.id}` })), "last"],
  ];
  const search = el("input", { type: "search", placeholder: "Subject, address or network", "aria-label": "Find connections", oninput: () => rows.restart() });
  const rows = list(page, "Connections", columns, async (pageToken) => {
    const words = search.value.trim();
    const query = { gatewayId, pageSize: 50, pageToken, [isAddress(words) ? "sourceIp" : "subject"]: words };
    const answer = await get("/triggercast/v1/connections", query, page.signal);
    return { rows: answer.connections, next: answer.nextPageToken };
  }, { empty: "Nobody is connected by WebSocket, or nobody that fits." });
  return { node: rows.node, again: rows.again, search };
}

/** A dialog that sends a message by `act(body)`, which answers in words. */
function message(title, about, act) {
  return dialog(title, (close) => {
    const data = field("Message", el("textarea", { rows: 5, required: true, value: "" }), { path: "data", hint: "At most 128 KiB." });
    const kind = field("Type", select(KINDS, "TEXT"), { path: "type" });
    const wrong = el("div", { role: "alert" });
    const send = el("button.main", { type: "submit" }, "Send");
    const onsubmit = async (event) => {
      event.preventDefault();
      if (send.disabled) return;
      data.complain(data.input.value ? "" : "Write what is to be sent.");
      if (!data.input.value) return;
      send.disabled = true;
      try {
        toast(await act({ data: toBase64(data.input.value), type: kind.input.value }), "good");
        close(true);
      } catch (error) {
        show(wrong, trouble(error));
      } finally {
        send.disabled = false;
      }
    };
    return el("form", { onsubmit, novalidate: true }, el("p.muted", about), data, kind, wrong,
      el("div.buttons", button("Cancel", () => close()), send));
  });
}

const sendTo = ({ id }) =>
  message("Send to one connection", id, async (body) => {
    await call("POST", `${at`/apigateways/websocket/v1/connections/${id}`}:send`, { body });
    return "It is sent.";
  });

export const broadcast = (gatewayId, path) =>
  message(`Broadcast to ${path}`, "Goes to all that are connected now. It is not kept for those who come back.", async (body) => {
    const { queued = 0, noRoom = 0, cutShort } = await call("POST", "/triggercast/v1/connections:broadcast", { body: { ...body, gatewayId, path } });
    const late = Number(noRoom) ? `; ${count(noRoom)} had no room for it` : "";
    return `On its way to ${count(queued)} connection${Number(queued) === 1 ? "" : "s"}${late}${others(cutShort)}.`;
  });

/** What a server that was too busy to ask all of its workers leaves open. */
const others = (cutShort) => (cutShort ? "; there may be others" : "");

async function disconnect({ id }) {
  if (!(await confirm("Close this connection?", `${id} is closed with 1001; most clients come back by themselves.`, "Disconnect"))) return false;
  return done(() => call("DELETE", at`/apigateways/websocket/v1/connections/${id}`), () => "It is closed.");
}

export async function disconnectAll(gatewayId, path) {
  if (!(await confirm(`Close all connections of ${path}?`, "They are closed with 1001; most clients come back by themselves.", "Disconnect all"))) return false;
  return done(
    () => call("POST", "/triggercast/v1/connections:disconnect", { body: { gatewayId, path } }),
    ({ disconnected = 0, cutShort }) => `${count(disconnected)} closed${others(cutShort)}.`);
}

async function done(act, words) {
  try {
    toast(words(await act()), "good");
    return true;
  } catch (error) {
    toast(error.message, "bad");
    return false;
  }
}
