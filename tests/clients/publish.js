// Publishes payloads with MQTT.js: publish.js PORT USER PASSWORD VERSION QOS TOPIC PAYLOAD...
import mqtt from "mqtt";

const [port, username, password, version, qos, topic, ...payloads] = process.argv.slice(2);
const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, {
  username,
  password,
  protocolVersion: version === "5" ? 5 : 4,
  reconnectPeriod: 0,
});
for (const payload of payloads) await client.publishAsync(topic, payload, { qos: Number(qos) });
await client.endAsync();
console.log("published");
