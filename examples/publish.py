"""Publishes readings as a device does, what esp32/esp32.ino does: what cannot be sent now is kept and sent later, in order,
and is kept until it is acknowledged, which means: until it is on the server's disk.

    pip install 'paho-mqtt>=2'
    python publish.py [HOST [PORT]]
    DEVICE=press-2 PASSWORD=Press-2-demo-1 COUNT=10 EVERY=0.1 python publish.py
    CA_FILE=data/tls/ca.pem python publish.py HOST 8883     by TLS
"""

import json
import os
import random
import sys
import time

import paho.mqtt.client as mqtt

DEVICE = os.environ.get("DEVICE", "press-1")
MOST_WAITING = 1000  # Readings that are kept while there is no connection. When it is full, new ones are thrown away.


def connected(client, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        print(f"refused: {reason}", file=sys.stderr)
        return
    print("connected", file=sys.stderr)
    client.publish(f"$devices/{DEVICE}/state", "online", qos=1)
    client.subscribe(f"$devices/{DEVICE}/commands", qos=1)


def told(_client, _userdata, message):
    print("command:", message.payload.decode(errors="replace"), flush=True)


def main(host="127.0.0.1", port="1883"):
    # The same id and no clean session: what is repeated after a break is known again, and not broadcast twice.
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=DEVICE, clean_session=False)
    client.username_pw_set(DEVICE, os.environ.get("PASSWORD", "Press-1-demo-1"))
    client.will_set(f"$devices/{DEVICE}/state", "offline", qos=1)
    client.max_queued_messages_set(MOST_WAITING)
    client.reconnect_delay_set(1, 30)
    if "CA_FILE" in os.environ:
        client.tls_set(ca_certs=os.environ["CA_FILE"])
    client.on_connect, client.on_message = connected, told
    client.connect_async(host, int(port))
    client.loop_start()

    left = int(os.environ.get("COUNT", "-1"))
    sent, temperature = None, 21.0
    while left != 0:
        temperature += random.uniform(-0.5, 0.5)
        sent = client.publish(f"$devices/{DEVICE}/events", json.dumps({"temperature": round(temperature, 1)}), qos=1)
        if sent.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            print("no room for more readings", file=sys.stderr)
        left -= 1
        time.sleep(float(os.environ.get("EVERY", "1")))
    if sent is not None and sent.rc != mqtt.MQTT_ERR_QUEUE_SIZE:
        sent.wait_for_publish()
    client.publish(f"$devices/{DEVICE}/state", "offline", qos=1).wait_for_publish()
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except KeyboardInterrupt:
        pass
