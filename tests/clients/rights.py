"""Connects with tokens that PyJWT signs, in every place that a token may stand: rights.py GATEWAY

It serves its own keys, prints their port, and reads a line when the gateway is up. Then, for each path, the status of a
handshake with a good token and of one without; of the subprotocol also what was answered."""
import asyncio
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import jwt
import websockets
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

KEYS = {
    "RS256": (rsa.generate_private_key(public_exponent=65537, key_size=2048), RSAAlgorithm),
    "RS512": (rsa.generate_private_key(public_exponent=65537, key_size=3072), RSAAlgorithm),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "ES384": (ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
}


def jwk(name):
    key, algorithm = KEYS[name]
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": name, "alg": name, "use": "sig"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"keys": [jwk(name) for name in KEYS]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def token(name):
    claims = {"sub": "python", "aud": "screens", "iat": int(time.time()), "exp": int(time.time()) + 60}
    return jwt.encode(claims, KEYS[name][0], algorithm=name, headers={"kid": name})


async def status(url, **options):
    try:
        async with websockets.connect(url, **options) as socket:
            return f"101 {socket.subprotocol or ''}".strip()
    except websockets.InvalidStatus as refused:
        return str(refused.response.status_code)


async def main(gateway):
    for name in KEYS:
        header = {"Authorization": f"Bearer {token(name)}"}
        print("header", name, await status(f"{gateway}/header", additional_headers=header), flush=True)
    print("header", await status(f"{gateway}/header"), flush=True)
    good = token("ES256")
    print("query", await status(f"{gateway}/query?access_token={good}"), await status(f"{gateway}/query"), flush=True)
    cookie = {"Cookie": f"theme=dark; session={good}"}
    print("cookie", await status(f"{gateway}/cookie", additional_headers=cookie), flush=True)
    offers = ["bearer", good]
    print("subprotocol", await status(f"{gateway}/subprotocol", subprotocols=offers), flush=True)
    async with websockets.connect(f"{gateway}/subprotocol", subprotocols=["bearer", token("RS256")]) as socket:
        await socket.send(json.dumps({"type": "authorize", "token": token("ES384")}))
        print("refresh", json.loads(await socket.recv())["type"], flush=True)


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("connected", flush=True)
print(server.server_port, flush=True)
asyncio.run(main(sys.stdin.readline().strip()))
