"""Publishes payloads by MQTT over WebSocket with paho-mqtt, and reads them again on the topic's other end:
publish_websocket.py PORT CA_FILE USER PASSWORD VERSION TOPIC PAYLOAD...; CA_FILE is - for a plain port."""
import sys

import paho.mqtt.client as mqtt

port, ca_file, user, password, version, topic, *payloads = sys.argv[1:]
protocol = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol, transport="websockets")
client.ws_set_options(path="/mqtt")
client.username_pw_set(user, password)
if ca_file != "-":
    client.tls_set(ca_certs=ca_file)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        print(f"refused: {reason}", flush=True)
        sys.exit(1)


client.on_connect = on_connect
client.connect("localhost", int(port))
client.loop_start()
for payload in payloads:
    client.publish(topic, payload, 1).wait_for_publish(10)
client.disconnect()
client.loop_stop()
print("published", flush=True)
