"""Measures a public port under pressure: usage crowd.py PROGRAM [--connections N] [--seconds N]. Needs paho-mqtt.

1. So many connections from 20 loopback addresses, opened as fast as possible: time, failures, memory.
2. The latency of 20 well-behaved clients before, during and after a flood of bad ones from other addresses: connections without a
   word, handshakes that drip, garbage, refused origins, oversize frames, floods of pings, and clients that do not read.

Prints one line for each figure. The server has the default limits but for `handshakes_per_second` in the first part.
"""

import argparse
import base64
import json
import multiprocessing
import os
import random
import resource
import selectors
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt

PASSWORD = "Crowd-demo-123"
CONFIG = """data_dir: ./data
gateway: {{ listen: "127.0.0.1:0"{gateway} }}
management: {{ listen: "127.0.0.1:0", grpc_listen: "127.0.0.1:0" }}
mqtt: {{ listen: "127.0.0.1:0" }}
log: {{ format: json }}
service_accounts: [ {{ id: sender, roles: [api-gateway.websocketBroadcaster] }} ]
gateways: [ {{ id: main, paths: {{ /ws: {{}} }} }} ]
iot: {{ registries: [ {{ id: crowd, devices: [ {{ id: d, password: {password} }} ] }} ] }}
triggers:
  - name: all
    source: {{ iot_message: {{ registry_id: crowd, mqtt_topic: '$devices/d/events', batch_settings: {{ max_count: 1, cutoff: 1s }} }} }}
    action: [ {{ gateway_websocket_broadcast: {{ gateway_id: main, path: /ws, service_account_id: sender }} }} ]
"""


class Server:
    def __init__(self, program, folder, gateway=""):
        Path(folder, "config.yaml").write_text(CONFIG.format(gateway=gateway, password=PASSWORD))
        self.process = subprocess.Popen(
            [program, "--config", "config.yaml"], cwd=folder, stderr=subprocess.PIPE, text=True
        )
        self.address = {}
        for line in self.process.stderr:
            fields = json.loads(line)["fields"]
            if fields.get("message") == "listening":
                self.address[fields["service"]] = fields["address"]
            if fields.get("message") == "ready":
                break
        else:
            raise SystemExit("the server does not start")
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def at(self, service):
        host, port = self.address[service].rsplit(":", 1)
        return host, int(port)

    def memory(self):
        """Bytes that the process has of its own (PSS)."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise SystemExit("no PSS")

    def end(self):
        self.process.terminate()
        self.process.wait()


def handshake(port, origin=None):
    key = base64.b64encode(random.randbytes(16)).decode()
    more = f"Origin: {origin}\r\n" if origin else ""
    return (
        f"GET /main/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
    ).encode()


def frame(opcode, payload):
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", len(payload))
    return head + bytes(4) + payload


def connect(source, target, limit=10):
    sock = socket.socket()
    sock.settimeout(limit)
    sock.bind((source, 0))
    sock.connect(target)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def crowd(program, count):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(program, folder, ", handshakes_per_second: 1000000")
        target = server.at("gateway")
        empty = server.memory()
        sources = [f"127.0.0.{number}" for number in range(2, 22)]
        selector, begun = selectors.DefaultSelector(), time.monotonic()
        answers, failures, times, opened, kept = {}, {}, [], 0, []
        under_way = 0
        while opened < count or under_way:
            # Some hundreds at a time: the queue of the listening socket holds no more.
            while opened < count and under_way < 500:
                sock = socket.socket()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT, for bind() before connect()
                sock.bind((sources[opened % len(sources)], 0))
                sock.connect_ex(target)
                selector.register(sock, selectors.EVENT_WRITE, time.monotonic())
                opened += 1
                under_way += 1
            for key, events in selector.select(10):
                sock = key.fileobj
                if events & selectors.EVENT_WRITE:
                    try:
                        sock.send(handshake(target[1]))
                        selector.modify(sock, selectors.EVENT_READ, key.data)
                        continue
                    except OSError as error:
                        answer = str(error)
                else:
                    try:
                        answer = sock.recv(4096).split(b"\r\n")[0].decode() or "closed"
                    except OSError as error:
                        answer = str(error)
                selector.unregister(sock)
                under_way -= 1
                if answer.startswith("HTTP/1.1 101"):
                    times.append(time.monotonic() - key.data)
                    kept.append(sock)
                else:
                    failures[answer] = failures.get(answer, 0) + 1
                    sock.close()
        took = time.monotonic() - begun
        time.sleep(1)
        each = (server.memory() - empty) / max(len(kept), 1)
        times.sort()
        print(f"connections: {len(kept)} of {count} from {len(sources)} addresses in {took:.2f} s, failures {failures}")
        print(f"handshake: median {times[len(times) // 2] * 1e3:.1f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.1f} ms")
        print(f"memory: {empty / 2**20:.1f} MiB before, {each / 1024:.2f} KiB for each connection")
        server.end()


class Good:
    """Clients that listen, and a device that says what time it is."""

    def __init__(self, server, count):
        self.selector, self.late = selectors.DefaultSelector(), []
        target = server.at("gateway")
        self.closed = 0
        self.buffers = {}
        for _ in range(count):
            sock = connect("127.0.0.1", target)
            sock.sendall(handshake(target[1]))
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(4096)
            sock.setblocking(False)
            self.buffers[sock] = bytearray(data.split(b"\r\n\r\n", 1)[1])
            self.selector.register(sock, selectors.EVENT_READ)
        self.device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.device.username_pw_set("d", PASSWORD)
        self.device.connect(*server.at("mqtt"))
        self.device.loop_start()

    def measure(self, seconds, rate):
        """Latencies in milliseconds, of every client."""
        self.late = []
        end = time.monotonic() + seconds
        due = time.monotonic()
        sent = 0
        while time.monotonic() < end + 2:
            now = time.monotonic()
            if now >= due and now < end:
                self.device.publish("$devices/d/events", str(time.monotonic_ns()), qos=1)
                sent += 1
                due += 1 / rate
            if now >= end and len(self.late) >= sent * len(self.buffers):
                break
            for key, _ in self.selector.select(min(max(due - time.monotonic(), 0), 0.05) if now < end else 0.05):
                self.read(key.fileobj)
        self.late.sort()
        missed = sent * len(self.buffers) - len(self.late)
        return self.late, missed

    def read(self, sock):
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        if not data:
            self.closed += 1
            self.selector.unregister(sock)
            return
        now, buffer = time.monotonic_ns(), self.buffers[sock]
        buffer += data
        while len(buffer) >= 4:
            opcode, length, at = buffer[0] & 15, buffer[1] & 127, 2
            if length == 126:
                length, at = struct.unpack_from("!H", buffer, 2)[0], 4
            if len(buffer) < at + length:
                return
            payload = bytes(buffer[at : at + length])
            del buffer[: at + length]
            if opcode == 1:
                for message in json.loads(payload)["messages"]:
                    sent = int(base64.b64decode(message["details"]["payload"]))
                    self.late.append((now - sent) / 1e6)
            elif opcode == 9:
                sock.setblocking(True)
                sock.sendall(frame(10, payload))
                sock.setblocking(False)


def silent(source, target, stop):
    kept = []
    while not stop.is_set():
        try:
            kept.append(connect(source, target))
        except OSError:
            time.sleep(0.01)
        if len(kept) > 500:
            kept.pop(0).close()
        time.sleep(0.002)


def dripping(source, target, stop):
    while not stop.is_set():
        try:
            socks = [connect(source, target) for _ in range(100)]
            for byte in handshake(target[1])[:40]:
                for sock in socks:
                    sock.send(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            time.sleep(0.01)


def once(make):
    """Says one thing on each connection and is gone."""

    def attack(source, target, stop):
        while not stop.is_set():
            try:
                sock = connect(source, target)
                for data in make(target[1]):
                    sock.sendall(data)
                sock.settimeout(0.5)
                sock.recv(4096)
                sock.close()
            except OSError:
                pass

    return attack


def pinging(source, target, stop):
    while not stop.is_set():
        try:
            sock = connect(source, target)
            sock.sendall(handshake(target[1]))
            while not stop.is_set():
                sock.sendall(frame(9, b"x" * 125) * 100)
        except OSError:
            pass


def deaf(source, target, stop):
    socks = []
    while not stop.is_set():
        try:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.bind((source, 0))
            sock.connect(target)
            sock.sendall(handshake(target[1]))
            socks.append(sock)
        except OSError:
            pass
        stop.wait(0.02)
        if len(socks) > 200:
            stop.wait(1)


ATTACKS = {
    "silent": silent,
    "dripping": dripping,
    "garbage": once(lambda port: [os.urandom(200) + b"\r\n\r\n"]),
    "wrong origin": once(lambda port: [handshake(port, "https://evil.example")]),
    "oversize": once(lambda port: [handshake(port), frame(2, bytes(65536))]),
    "pinging": pinging,
    "deaf": deaf,
}


def worker(number, name, target, stop, pace):
    os.nice(pace)
    ATTACKS[name](f"127.0.1.{number + 1}", target, stop)


def told(name, late, missed):
    mid, p99 = statistics.median(late), late[len(late) * 99 // 100]
    print(f"{name:7} {len(late)} deliveries, {missed} missing, median {mid:.2f} ms, p99 {p99:.2f} ms, most {late[-1]:.1f} ms")


def flood(program, seconds, pace):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(program, folder)
        good = Good(server, 20)
        good.measure(2, 50)
        told("before", *good.measure(seconds, 50))
        stop = multiprocessing.Event()
        bad = [
            multiprocessing.Process(target=worker, args=(number, name, server.at("gateway"), stop, pace), daemon=True)
            for number, name in enumerate(ATTACKS)
        ]
        for process in bad:
            process.start()
        good.measure(2, 50)
        used = os.times(), Path(f"/proc/{server.process.pid}/stat").read_text().split()
        told("during", *good.measure(seconds, 50))
        after = Path(f"/proc/{server.process.pid}/stat").read_text().split()
        cpu = sum(int(after[field]) - int(used[1][field]) for field in (13, 14)) / os.sysconf("SC_CLK_TCK") / seconds
        print(f"server: {cpu:.2f} cores, {server.memory() / 2**20:.1f} MiB, good clients closed: {good.closed}")
        stop.set()
        for process in bad:
            process.terminate()
            process.join()
        time.sleep(2)
        told("after", *good.measure(seconds, 50))
        host, port = server.at("management")
        text = subprocess.run(["curl", "-s", f"http://{host}:{port}/metrics"], capture_output=True, text=True).stdout
        for line in text.splitlines():
            if line.startswith(("triggercast_websocket_closed", "triggercast_websocket_refused")):
                print(line)
        server.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--nice", type=int, default=10, help="of the bad clients, which share the machine with the rest")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    program = given.program.resolve()
    crowd(program, given.connections)
    flood(program, given.seconds, given.nice)


if __name__ == "__main__":
    main()
