"""A proxy before a server on loopback that cuts the bodies of answers short, as a bad network does."""

import contextlib
import random
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

PIECE = 65_536


class FaultProxy:
    """Passes requests on, one a connection; `cuts` of the answers from now on, drawn from `seed`, end in the middle of the body."""

    def __init__(self, target: str, seed: int = 0) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname or "", parts.port or 80)
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.share, self.left, self.cut = 0.0, 0, 0

        class Handler(socketserver.StreamRequestHandler):
            proxy = self

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    self.proxy.pass_on(self)
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)  # `_pump` still reads from it: closing the file would wait for that, and so would the client

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def cuts(self, number: int, share: float) -> None:
        """The next `number` answers of which one is drawn with the probability `share` are cut; `cut` counts them."""
        with self.lock:
            self.left, self.share = number, share

    def _draw(self) -> bool:
        with self.lock:
            drawn = self.left > 0 and self.random.random() < self.share
            self.left -= drawn
            self.cut += drawn
            return drawn

    def pass_on(self, client: socketserver.StreamRequestHandler) -> None:
        """One request and its answer. `Connection: close` both ways, so that each request is one connection."""
        asked = _head(client.rfile)
        if not asked:
            return
        with socket.create_connection(self.target) as server:
            server.sendall(_closing(asked))
            threading.Thread(target=_pump, args=(client.rfile, server), daemon=True).start()
            answer = server.makefile("rb")
            head = _head(answer)
            while head.startswith(b"HTTP/1.1 1"):  # `100 Continue`: the answer itself is still to come
                client.wfile.write(head)
                head = _head(answer)
            client.wfile.write(_closing(head))
            length = int((re.search(rb"\r\nContent-Length: *(\d+)", head, re.IGNORECASE) or [b"", b"0"])[1])
            whole = not length or asked.startswith(b"HEAD") or not head.startswith(b"HTTP/1.1 20")
            left = -1 if whole or not self._draw() else length // 2
            while piece := answer.read1(PIECE if left < 0 else min(left, PIECE)):
                client.wfile.write(piece)
                left -= len(piece) if left >= 0 else 0
                if left == 0:
                    break


def _head(stream: Any) -> bytes:
    lines = []
    while line := stream.readline():
        lines.append(line)
        if line == b"\r\n":
            break
    return b"".join(lines)


def _closing(head: bytes) -> bytes:
    return re.sub(rb"\r\nConnection:[^\r]*", b"", head, flags=re.IGNORECASE).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def _pump(source: Any, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while piece := source.read1(PIECE):
            target.sendall(piece)


@contextlib.contextmanager
def fault_proxy(target: str, seed: int = 0) -> Iterator[FaultProxy]:
    """While the context lasts."""
    proxy = FaultProxy(target, seed)
    threading.Thread(target=proxy.server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
