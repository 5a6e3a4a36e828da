"""An integration that gives every message back: usage echo.py [ADDRESS:PORT]. It prints the address that it listens on."""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    """Answers with the body and the content type of the request, in one write."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", self.headers.get("Content-Type", "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        # An answer without a body is none, unless it says that it is one.
        self.send_header("X-Triggercast-Send-Empty", "true")
        self.end_headers()
        self.wfile.write(body)

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def log_message(self, *_):
        pass


def serve(host="127.0.0.1", port=0):
    """A server that is ready to `serve_forever`."""
    server = ThreadingHTTPServer((host, port), Echo)
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0").rpartition(":")
    with serve(host, int(port)) as server:
        print("%s:%d" % server.server_address, flush=True)
        server.serve_forever()
