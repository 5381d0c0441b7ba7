"""A server that speaks OpenAI's chat-completions protocol on loopback: checks key, model and request, answers by a function, fails on demand."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Fault = tuple[str, Any]
"""("status", 429 | 500 | ...), ("slow", seconds), ("garbage", body), ("hang up", None), ("retry after", seconds: a 429 that says when)."""


class RequestError(ValueError):
    """What the server answers with HTTP 400."""


class ChatServer:
    """A context manager. `answer(prompt)` gives the reply, None a completion without text; `faults` are what the next requests meet, in order.

    `sees`: the answer is `answer(prompt, pictures)`; without it a picture is refused. `structured`: whether it knows `response_format`.
    A reply of more words than `max_tokens` is cut off. `broken`: a prompt with such words is always answered with HTTP 500.
    """

    def __init__(self, answer: Callable[..., str | None], model: str = "judge", key: str | None = None, *, sees: bool = False, structured: bool = True):
        self.answer, self.model, self.key, self.sees, self.structured = answer, model, key, sees, structured
        self.broken: str | None = None
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
        try:
            prompt, pictures = self._read(body)
        except RequestError as error:
            return 400, json.dumps({"error": {"message": str(error)}})
        if self.broken is not None and self.broken in prompt:
            return 500, json.dumps({"error": {"message": "broken"}})
        reply = self.answer(prompt, pictures) if self.sees else self.answer(prompt)
        words = (reply or "").split(" ")
        cut = len(words) > body["max_tokens"]
        message = {"role": "assistant", "content": " ".join(words[: body["max_tokens"]]) if cut else reply}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        return 200, json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": self.model, "choices": [choice]})

    def _read(self, body: dict[str, Any]) -> tuple[str, list[Image.Image]]:
        """The text of the last message, and all pictures. Raises RequestError."""
        messages = body.get("messages")
        if not messages or any(set(m) != {"role", "content"} or m["role"] not in ("system", "user", "assistant") for m in messages):
            raise RequestError("messages are missing")
        if "response_format" in body and not self.structured:
            raise RequestError("response_format is not supported")
        if "response_format" in body and body["response_format"]["json_schema"]["schema"]["type"] != "object":
            raise RequestError("response_format: no schema of an object")
        pictures = [_picture(part) for m in messages if isinstance(m["content"], list) for part in m["content"] if part["type"] != "text"]
        if pictures and not self.sees:
            raise RequestError("this model sees no pictures")
        last = messages[-1]["content"]
        return (last if isinstance(last, str) else "".join(part["text"] for part in last if part["type"] == "text")), pictures

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._http.shutdown()
        self._http.server_close()


def _picture(part: dict[str, Any]) -> Image.Image:
    head, _, data = part["image_url"]["url"].partition(",")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
    except (ValueError, OSError) as error:
        raise RequestError(f"image_url: {error}") from error
    if head != f"data:image/{str(image.format).lower()};base64":
        raise RequestError(f"image_url: {head} is a {image.format}")
    return image
