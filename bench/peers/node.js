// What a user writes by hand: MQTT in, WebSocket out. Arguments: the broker's port, the port for clients.
const mqtt = require('mqtt');
const { WebSocketServer, WebSocket } = require('ws');

const [broker, port] = process.argv.slice(2);
const clients = new WebSocketServer({ host: '127.0.0.1', port: Number(port), path: '/ws' });
const source = mqtt.connect(`mqtt://127.0.0.1:${broker}`);
source.on('connect', () => source.subscribe('bench'));
source.on('message', (_, payload) => {
  for (const client of clients.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(payload, { binary: false });
  }
});
