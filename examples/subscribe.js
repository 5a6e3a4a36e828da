// Prints every event of a path as a line, and comes back after a break: nothing is missed, and nothing is printed twice.
//
//   node subscribe.js ws://127.0.0.1:8080/main/ws
//   TOKEN=eyJ… node subscribe.js wss://HOST/main/ws     for a path whose authorizer looks into the subprotocol `bearer`
//
// Node 22 has a WebSocket built in; before, `npm install ws`.
const WebSocket = globalThis.WebSocket ?? require("ws");

const OUR_FAULT = [1002, 1007, 1008, 1009]; // The same would come of it again.
const LONGEST = 30_000;

const url = new URL(process.argv[2] ?? "ws://127.0.0.1:8080/main/ws");
const protocols = process.env.TOKEN ? ["bearer", process.env.TOKEN] : [];
let wait = 500;

function connect() {
  const socket = new WebSocket(url.href, protocols);
  socket.onopen = () => {
    wait = 500;
    console.error("connected");
  };
  socket.onmessage = ({ data }) => JSON.parse(data).messages.forEach(take);
  socket.onerror = ({ message }) => console.error(message || "the connection failed");
  socket.onclose = ({ code, reason }) => {
    console.error(`closed: ${code} ${reason}`);
    if (OUR_FAULT.includes(code)) process.exit(1);
    setTimeout(connect, wait * (0.5 + Math.random())); // Not all clients at once.
    wait = Math.min(2 * wait, LONGEST);
  };
}

function take({ event_metadata, details }) {
  const payload = Buffer.from(details.payload ?? "", "base64").toString();
  console.log(event_metadata.created_at, details.mqtt_topic ?? `${details.repository_name}:${details.tag}`, payload);
  // From here we go on. Where we began does not count any more.
  url.searchParams.delete("since");
  url.searchParams.delete("last");
  url.searchParams.set("last_event_id", event_metadata.event_id);
}

connect();
