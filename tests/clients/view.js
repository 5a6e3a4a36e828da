// Prints "connected", which extensions were agreed on, then every message of a WebSocket as a line: view.js URL
// deflate|plain|bomb. With deflate it also says something long, compressed, and "pong" when a ping after it is answered; with bomb it
// says far too much, compressed, and prints the close code.
import WebSocket from "ws";

const [url, mode] = process.argv.slice(2);
const socket = new WebSocket(url, {
  perMessageDeflate: mode === "plain" ? false : { threshold: 0 },
});
socket.on("open", () => {
  console.log("connected");
  console.log(socket.extensions);
  if (mode === "bomb") {
    socket.send("x".repeat(30 << 20));
  } else if (mode === "deflate") {
    socket.send("what a client says ".repeat(1000));
    socket.ping();
  }
});
socket.on("pong", () => console.log("pong"));
socket.on("message", (data) => console.log(data.toString()));
socket.on("error", () => {});
socket.on("close", (code) => console.log(`closed ${code}`));
