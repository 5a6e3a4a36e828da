// Prints "connected", then every message of a WebSocket as a line, then the close code: listen.js URL
import WebSocket from "ws";

const socket = new WebSocket(process.argv[2]);
socket.on("open", () => console.log("connected"));
socket.on("message", (data, isBinary) => console.log(isBinary ? "binary" : data.toString()));
socket.on("close", (code) => console.log(`closed ${code}`));
socket.on("unexpected-response", (_, response) => {
  console.log(`refused ${response.statusCode}`);
  process.exit(1);
});
