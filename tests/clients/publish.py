"""Publishes payloads with paho-mqtt: publish.py PORT USER PASSWORD VERSION QOS TOPIC PAYLOAD..."""
import sys

import paho.mqtt.client as mqtt

port, user, password, version, qos, topic, *payloads = sys.argv[1:]
protocol = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
client.username_pw_set(user, password)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        print(f"refused: {reason}", flush=True)
        sys.exit(1)


client.on_connect = on_connect
client.connect("127.0.0.1", int(port))
client.loop_start()
for payload in payloads:
    client.publish(topic, payload, int(qos)).wait_for_publish(10)
client.disconnect()
client.loop_stop()
print("published", flush=True)
