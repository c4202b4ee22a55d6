"""The real volumes, and a server on loopback that can fail in every way a server fails."""

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from mitoda.datasets import download

WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in</body></html>\n"


class FaultyServer:
    """Serves a folder; `faults` maps a request path to what goes wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.sent: dict[str, int] = {}
        """Bytes of content sent for each path, in all."""
        self.stop_waiting = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                """Keep standard error clean."""

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.partition("?")[0])
        self.requests.append(path)
        fault = self.faults.get(path, "")
        file = self.folder / path.lstrip("/")
        if fault.isdecimal():
            request.send_error(int(fault))
            return
        if not file.is_file():
            request.send_error(404)
            return
        body = WEB_PAGE if fault == "web page" else file.read_bytes()
        version = hashlib.sha256(body).hexdigest()
        first = int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        whole, body = len(body), body[first:]
        announced = len(body)
        if fault == "other bytes":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault in ("truncated", "cut", "stalls", "complete half"):
            body = body[: len(body) // 2]
        if fault == "complete half":
            announced = len(body)
        if first >= whole > 0:
            request.send_error(416)
            return
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        request.send_header("ETag", f'"{version}"')
        request.send_header("Content-Length", str(announced))
        request.end_headers()
        request.wfile.write(body)
        self.sent[path] = self.sent.get(path, 0) + len(body)
        if fault == "stalls":
            request.wfile.flush()
            self.stop_waiting.wait()
        if fault == "cut":
            request.wfile.flush()
            linger = struct.pack("ii", 1, 0)  # close sends a reset instead of a farewell
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        self.stop_waiting.set()
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing server fails at once."""
    monkeypatch.setattr(download, "ATTEMPTS", 1)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], FaultyServer]]:
    """Start servers of folders; all are stopped at the end."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[FaultyServer] = []

    def start(folder: Path) -> FaultyServer:
        servers.append(FaultyServer(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
