"""Stands before a real HTTP server and lets nobody in without a name and a password (basic auth)."""

import base64
import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_BY_HOP = {"transfer-encoding", "connection", "content-length"}


@contextlib.contextmanager
def behind_password(port: int, name: str, password: str) -> Iterator[str]:
    """Gives `host:port` of a door to the server on 127.0.0.1:`port`; it answers 401 without these credentials."""
    wanted = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, data = 401, [("WWW-Authenticate", "Basic")], b""
            if self.headers.get("Authorization") == wanted:
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                status, headers, data = answer.status, answer.getheaders(), answer.read()
                server.close()
            self.send_response(status)
            for key, value in headers:
                if key.lower() not in _HOP_BY_HOP:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def log_message(self, *_: object) -> None:
            pass

    door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{door.server_address[1]}"
    finally:
        door.shutdown()
        door.server_close()
        thread.join(10)
