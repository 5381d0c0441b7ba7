"""A server that speaks OpenAI's chat-completions protocol on loopback: checks key, model and request, answers by a function, fails on demand."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = tuple[str, Any]
"""("status", 429 | 500 | ...), ("slow", seconds), ("garbage", body), ("hang up", None), ("retry after", seconds: a 429 that says when)."""


class ChatServer:
    """A context manager. `answer(prompt)` gives the reply, None a completion without text; `faults` are what the next requests meet, in order."""

    def __init__(self, answer: Callable[[str], str | None], model: str = "judge", key: str | None = None):
        self.answer, self.model, self.key = answer, model, key
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append(body)
                    fault = server.faults.pop(0) if server.faults else None
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                try:
                    self._handle(body, fault)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with server._lock:
                        server._now -= 1

            def _handle(self, body: dict[str, Any], fault: Fault | None) -> None:
                kind, value = fault or ("", None)
                if kind == "hang up":
                    self.close_connection = True
                elif kind == "status":
                    self._send(value, json.dumps({"error": {"message": f"fault {value}"}}))
                elif kind == "retry after":
                    self._send(429, "{}", {"Retry-After": str(value)})
                elif kind == "garbage":
                    self._send(200, value)
                else:
                    time.sleep(value if kind == "slow" else 0)
                    self._send(*server._complete(self.path, self.headers.get("Authorization"), body))

            def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
                data = text.encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def _complete(self, path: str, authorization: str | None, body: dict[str, Any]) -> tuple[int, str]:
        if path != "/v1/chat/completions":
            return 404, json.dumps({"error": {"message": f"no such path {path}"}})
        if self.key is not None and authorization != f"Bearer {self.key}":
            return 401, json.dumps({"error": {"message": "wrong key"}})
        if body.get("model") != self.model:
            return 404, json.dumps({"error": {"message": f"no such model {body.get('model')}"}})
        messages = body.get("messages")
        if not messages or any(set(m) != {"role", "content"} for m in messages):
            return 400, json.dumps({"error": {"message": "messages are missing"}})
        reply = self.answer(messages[-1]["content"])
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": self.model, "choices": [choice]})

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.shutdown()
        self._http.server_close()
