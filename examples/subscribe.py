"""Prints every event of a path as a line, and comes back after a break: nothing is missed, and nothing is printed twice.

    pip install websockets
    python subscribe.py ws://127.0.0.1:8080/main/ws
    TOKEN=eyJ… python subscribe.py wss://HOST/main/ws     for a path whose authorizer looks into the header Authorization
"""

import base64
import json
import os
import random
import sys
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

OUR_FAULT = {1002, 1007, 1008, 1009}  # The same would come of it again.
LONGEST = 30


def after(url, last):
    """The address that goes on after an event. Where we began does not count any more."""
    if last is None:
        return url
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query) if pair[0] not in ("since", "last", "last_event_id")]
    return parts._replace(query=urlencode([*query, ("last_event_id", last)])).geturl()


def show(event):
    details = event["details"]
    payload = base64.b64decode(details.get("payload", "")).decode(errors="replace")
    topic = details.get("mqtt_topic") or f"{details['repository_name']}:{details['tag']}"
    print(event["event_metadata"]["created_at"], topic, payload, flush=True)


def main(url):
    token = os.environ.get("TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else None
    last, wait = None, 0.5
    while True:
        try:
            with connect(after(url, last), additional_headers=headers) as socket:
                print("connected", file=sys.stderr)
                wait = 0.5
                for message in socket:
                    for event in json.loads(message)["messages"]:
                        show(event)
                        last = event["event_metadata"]["event_id"]
            print("closed", file=sys.stderr)
        except ConnectionClosed as closed:
            print(f"closed: {closed}", file=sys.stderr)
            if closed.rcvd and closed.rcvd.code in OUR_FAULT:
                sys.exit(1)
        except (OSError, WebSocketException) as error:
            print(f"cannot connect: {error}", file=sys.stderr)
        time.sleep(wait * random.uniform(0.5, 1.5))  # Not all clients at once.
        wait = min(2 * wait, LONGEST)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/main/ws")
    except KeyboardInterrupt:
        pass
