"""A host of files on loopback that keeps to HTTP, or fails in the ways that hosts do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileHost:
    """What the host has, and what it was asked.

    ``files``: bytes by path. ``moved``: path by path. The next answers break off after ``cuts`` bytes, one each.
    ``asked``: path and ``Range`` of each request.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def file_host() -> Iterator[FileHost]:
    """Run a host in a thread of this process."""
    host = FileHost()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            asked = self.headers.get("Range", "")
            host.asked.append((self.path, asked))
            if self.path in host.moved:
                self.send_response(302)
                self.send_header("Location", host.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = host.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").partition("-")[0] or 0) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", '"of-this-file"')
            self.send_header("X-Repo-Commit", "0" * 40)  # which the hub tells
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if with_body:
                body = data[start:]
                cut = host.cuts.pop(0) if host.cuts else len(body)
                self.wfile.write(body[:cut])
                self.close_connection = cut < len(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
