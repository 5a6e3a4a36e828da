// Shows what is broadcast on a path, and comes back after a break: nothing is missed, and nothing is shown twice.
const url = new URLSearchParams(location.search).get("url") ?? `ws://${location.hostname}:8080/main/ws`;
const state = document.getElementById("state");
const list = document.getElementById("events");
let last = ""; // The id of the last event, after which we go on.

function connect() {
  const socket = new WebSocket(url + (url.includes("?") ? "&" : "?") + `last_event_id=${last}`);
  socket.onopen = () => (state.textContent = `connected to ${url}`);
  socket.onmessage = ({ data }) => JSON.parse(data).messages.forEach(show);
  socket.onclose = ({ code }) => {
    const mine = [1002, 1007, 1008, 1009].includes(code); // Our fault: the same would come of it again.
    state.textContent = mine ? `closed with ${code}` : "connecting again";
    if (!mine) setTimeout(connect, 500 + 1000 * Math.random()); // Not all at once.
  };
}

function show({ event_metadata, details }) {
  last = event_metadata.event_id;
  const line = document.createElement("li");
  const bytes = Uint8Array.from(atob(details.payload ?? ""), (char) => char.charCodeAt(0));
  const what = [details.mqtt_topic, details.repository_name, details.tag, new TextDecoder().decode(bytes)];
  line.textContent = [event_metadata.created_at, ...what].filter(Boolean).join(" "); // As text: payloads are not HTML.
  list.prepend(line);
  if (list.children.length > 200) list.lastChild.remove();
}

connect();
