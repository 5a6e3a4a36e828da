// Shows the events of a path as they come, and misses none when the connection breaks. Copy it.
const [scheme, address] = document.querySelector("meta[name=gateway]").content.split("://");
const host = address.startsWith(":") ? location.hostname + address : address;
const url = `${scheme}://${host}/main/ws`;
const text = (base64) => new TextDecoder().decode(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
const state = document.getElementById("state");
const rows = document.getElementById("rows");
document.getElementById("url").textContent = url;
let last = null; // the id of the last event that came

function connect() {
  const socket = new WebSocket(last ? `${url}?last_event_id=${last}` : `${url}?last=10`);
  socket.onopen = () => (state.textContent = "connected");
  socket.onmessage = (message) => JSON.parse(message.data).messages.forEach(show);
  socket.onclose = () => {
    state.textContent = "broken; it comes back";
    setTimeout(connect, 500 + 1000 * Math.random());
  };
}

function show({ event_metadata: about, details }) {
  last = about.event_id;
  const row = rows.insertRow(0);
  for (const cell of [about.created_at.slice(11, 19), details.mqtt_topic, text(details.payload)]) {
    row.insertCell().textContent = cell;
  }
  if (rows.rows.length > 100) rows.deleteRow(-1);
}

connect();
