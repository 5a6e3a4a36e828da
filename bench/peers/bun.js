// uWebSockets' own publish tree, by Bun: MQTT in, WebSocket out. Arguments: the broker's port, the port for clients.
const mqtt = require('mqtt');

const [broker, port] = process.argv.slice(2);
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(port),
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response('WebSocket only', { status: 426 })),
  websocket: { open: (client) => client.subscribe('bench'), message() {}, backpressureLimit: 64 << 20 },
});
const source = mqtt.connect(`mqtt://127.0.0.1:${broker}`);
source.on('connect', () => source.subscribe('bench'));
source.on('message', (_, payload) => server.publish('bench', payload.toString()));
