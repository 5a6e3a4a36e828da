"""Logs in to MQTT by a certificate and prints "connected", then "closed" when the server ends it: hold.py PORT CA_FILE CERTIFICATE KEY"""
import sys

import paho.mqtt.client as mqtt

port, ca_file, certificate, key = sys.argv[1:]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
client.tls_set(ca_certs=ca_file, certfile=certificate, keyfile=key)


def on_connect(client, userdata, flags, reason, properties):
    print(f"refused: {reason}" if reason.is_failure else "connected", flush=True)


client.on_connect = on_connect
client.connect("localhost", int(port))
client.loop_forever()
print("closed", flush=True)
