"""A way to S3 that fails: a proxy on loopback that answers 500, waits, or drops the connection, as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Literal
from urllib.parse import urlsplit

from soundguide.storage import Storage

Fault = Literal["", "500", "503", "slow", "drop", "cut"]
SLOW_SECONDS = 1.5
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultyS3:
    """What the proxy does: ``faults`` in turn, one for each request, without end; ``met`` counts those that struck.

    ``read``: paths that were asked for.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.met: dict[str, int] = {}
        self.read: list[str] = []
        self._faults: Iterator[Fault] = cycle([""])
        self._lock = threading.Lock()

    def strike(self, *faults: Fault) -> None:
        """From now on do these, over and over."""
        with self._lock:
            self._faults, self.met = cycle(faults), {}

    def next(self) -> Fault:
        with self._lock:
            fault = next(self._faults)
            self.met[fault] = self.met.get(fault, 0) + 1
            return fault


@contextmanager
def faulty(s3: Storage) -> Iterator[tuple[FaultyS3, Storage]]:
    """Yield a proxy in front of ``s3``, without faults yet, and the storage that goes through it."""
    faults = FaultyS3(urlsplit(str(s3.config.endpoint_url)).netloc)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self._body()
            fault = faults.next()
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            if self.command == "GET":
                faults.read.append(urlsplit(self.path).path)
            if fault == "drop":
                self.close_connection = True
                self.connection.shutdown(2)
                return
            if fault in ("500", "503"):
                self._answer(int(fault), {}, b"<Error><Code>InternalError</Code><Message>again</Message></Error>")
                return
            upstream = HTTPConnection(faults.target, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            upstream.request(self.command, self.path, body, headers)
            reply = upstream.getresponse()
            data = reply.read()
            kept = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP}
            length = int(reply.getheader("Content-Length") or 0) if self.command == "HEAD" else len(data)
            self._answer(reply.status, kept, data, length=length, cut=fault == "cut")

        def _body(self) -> bytes:
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(
            self, status: int, headers: dict[str, str], data: bytes, *, length: int | None = None, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True
                self.connection.shutdown(2)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        yield faults, Storage(s3.config.model_copy(update={"endpoint_url": address}))
    finally:
        server.shutdown()
        server.server_close()
