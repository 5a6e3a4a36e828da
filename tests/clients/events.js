// Prints "connected" at the first connection, then the data of every server-sent event as a line: events.js URL
// It comes back by itself, as browsers do (HTML standard, section 9.2.3).
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
let connected = false;
source.onopen = () => {
  if (!connected) console.log("connected");
  connected = true;
};
source.onmessage = ({ data, lastEventId }) => console.log(`${lastEventId} ${data}`);
