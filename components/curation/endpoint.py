"""An annotator behind an OpenAI-compatible server (vLLM, SGLang, any vendor): many requests at once, patient with a server that is busy or ill."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, sleep_using_event, stop_after_attempt, stop_when_event_set
from tenacity.wait import wait_random_exponential

from components.curation.answers import Answers
from components.curation.pictures import data_uri
from components.curation.writing import Ask, Reply, WritingAnnotator
from components.errors import SetupError, TransientError
from components.recipe.annotator import Endpoint

logger = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
TIMEOUT_SECONDS = 60.0
LATER = {408, 409, 425, 429}
"""Besides 5xx: the request is fine, the moment is not."""
UNUSABLE = {400, 413, 422}
"""The server will never answer this question, such as one that is too long; others it may."""
CHEAP = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 1, "temperature": 0}
"""Asked to see whether a server that failed at one question answers at all."""


class BusyError(Exception):
    """A failure that may pass; the message says which."""


class Pace:
    """When the next request may go out: at most `per_minute`, and none before the server wants one again."""

    def __init__(self, per_minute: float | None, stop: threading.Event):
        self._gap, self._stop, self._lock, self._next = 60 / per_minute if per_minute else 0.0, stop, threading.Lock(), 0.0

    def wait(self) -> None:
        """Returns when it is this request's turn."""
        with self._lock:
            at = max(time.monotonic(), self._next)
            self._next = at + self._gap
        self._stop.wait(max(0.0, at - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Lets nobody through for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class EndpointAnnotator(WritingAnnotator):
    """Requests go out at temperature 0."""

    def __init__(
        self,
        endpoint: Endpoint,
        answers: Answers,
        requests: int,
        *,
        per_minute: float | None = None,
        attempts: int = ATTEMPTS,
        first_delay_seconds: float = FIRST_DELAY_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ):
        """`requests`: how many are under way at the same time. Raises SetupError when the environment has no key of the endpoint's name."""
        super().__init__(f"{endpoint.model} at {endpoint.base_url}", answers)
        self.endpoint, self.requests, self.attempts = endpoint, requests, attempts
        self._stop, self._heard, self._refusal, self._plain = threading.Event(), False, "", False
        self._pace = Pace(per_minute, self._stop)
        self._wait = wait_random_exponential(multiplier=first_delay_seconds, max=LONGEST_DELAY_SECONDS)
        headers = {}
        if endpoint.api_key_env is not None:
            if not (key := os.environ.get(endpoint.api_key_env)):
                raise SetupError(f"{endpoint.api_key_env}: the key of {endpoint.base_url} is not in the environment: set this variable")
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(headers=headers, timeout=timeout_seconds, limits=httpx.Limits(max_connections=requests))
        self._url = f"{endpoint.base_url.rstrip('/')}/chat/completions"

    def _generate(self, asks: Mapping[str, Ask]) -> Iterator[tuple[str, Reply | None]]:
        """Raises TransientError when the server does not answer for long, SetupError when it never will."""
        with ThreadPoolExecutor(self.requests) as pool:
            asked = {pool.submit(self._ask, ask): key for key, ask in asks.items()}
            try:
                for done in as_completed(asked):
                    yield asked[done], done.result()
            except BaseException:  # also a signal to this step: whatever waits to try again stops
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if asks and not self._heard:
            raise SetupError(f"{self._url}: refuses every question: {self._refusal}")

    def _ask(self, ask: Ask) -> Reply | None:
        """One reply. None when the server refuses this question, or fails at it time and again while it answers others."""
        body = self._body(ask)
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts) | stop_when_event_set(self._stop),
            wait=self._wait,
            retry=retry_if_exception_type(BusyError),
            sleep=sleep_using_event(self._stop),
            before_sleep=_say,
        )
        try:
            reply = retrying(self._post, body)
        except RetryError as error:
            problem = str(error.last_attempt.exception())
            if self._stop.is_set() or not self._answers_at_all():
                raise TransientError(
                    f"{self._url}: no answer after {self.attempts} attempts, at last {problem}: see to the server; answers so far are kept"
                ) from error
            logger.warning("%s: no answer to one question after %d attempts, at last %s; it answers others", self._url, self.attempts, problem)
            self._heard = True
            return None
        self._heard |= reply is not None
        return reply

    def _body(self, ask: Ask) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in ask.messages()]
        if ask.request.images:
            parts = [{"type": "image_url", "image_url": {"url": data_uri(file)}} for file in ask.request.images]
            first = next(message for message in messages if message["role"] == "user")
            first["content"] = [*parts, {"type": "text", "text": first["content"]}]
        body = {"model": self.endpoint.model, "messages": messages, "temperature": 0, "max_tokens": ask.max_tokens}
        if ask.schema:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": json.loads(ask.schema)}}
        return body

    def _post(self, body: dict[str, Any]) -> Reply | None:
        """One attempt; None when the server refuses the question. Raises BusyError."""
        if self._plain:
            body = {k: v for k, v in body.items() if k != "response_format"}
        response = self._send(body)
        if response.status_code in UNUSABLE and "response_format" in body:  # or does it not know structured output?
            response = self._send({k: v for k, v in body.items() if k != "response_format"})
            self._plain |= response.status_code == 200
        if response.status_code in UNUSABLE:
            self._refusal = response.text[:200]
            return None
        if response.status_code in LATER or response.status_code >= 500:
            self._pace.hold(_wait_asked_for(response))
            raise BusyError(f"HTTP {response.status_code}")
        self._check(response)
        reply = _reply(response)
        if reply is None:
            raise BusyError(f"something else than a chat completion: {response.text[:100]!r}")
        return reply

    def _send(self, body: dict[str, Any]) -> httpx.Response:
        self._pace.wait()
        try:
            return self._client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise BusyError(f"{type(error).__name__} {error}".strip()) from error

    def _answers_at_all(self) -> bool:
        try:
            response = self._send({"model": self.endpoint.model, **CHEAP})
        except BusyError:
            return False
        return response.status_code == 200 and _reply(response) is not None

    def _check(self, response: httpx.Response) -> None:
        """Raises SetupError for what only the user can change."""
        if response.status_code in (401, 403):
            name = self.endpoint.api_key_env
            raise SetupError(f"{self._url}: refuses {f'the key in {name}' if name else 'requests without a key: set api_key_env'}")
        if response.status_code != 200:
            what = f"HTTP {response.status_code} {response.text[:200]!r}"
            raise SetupError(f"{self._url}: answers {what}: check base_url and the model {self.endpoint.model!r}")


def _say(state: RetryCallState) -> None:
    problem = state.outcome.exception() if state.outcome else None
    logger.info("attempt %d failed with %s; the next one in %.1f s", state.attempt_number, problem, state.upcoming_sleep)


def _wait_asked_for(response: httpx.Response) -> float:
    """Seconds that the server wants us to wait; 0 when it does not say."""
    try:
        seconds = float(response.headers.get("retry-after", 0))
    except ValueError:  # a date
        return 0.0
    return min(seconds, LONGEST_DELAY_SECONDS) if seconds > 0 else 0.0


def _reply(response: httpx.Response) -> Reply | None:
    """None when the response is no chat completion. A completion without text, such as a refusal, is an empty reply."""
    try:
        first = response.json()["choices"][0]
        text = first["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    return Reply(str(text or ""), first.get("finish_reason") != "length")
