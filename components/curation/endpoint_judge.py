"""A judge behind an OpenAI-compatible server (vLLM, SGLang, any vendor): lettered options, temperature 0, every answer paid for once."""

import hashlib
import json
import logging
import os
import random
import re
import string
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx

from components.curation.answers import Answers
from components.curation.judge import Judge, Question
from components.curation.words import IDEOGRAPH, words
from components.errors import SetupError, TransientError
from components.recipe.curation import Endpoint

logger = logging.getLogger(__name__)

PROMPT_VERSION = "1"
"""Of the wording below; changes whenever a server could be asked otherwise."""

ASK = {"en": "Answer with the option's letter from the given choices directly.", "zh": "请直接回答选项字母。"}
"""POINTS' own wording for multiple choice."""

LETTERS = string.ascii_uppercase
STATED = re.compile(r"(?:^\W*|(?i:\b(?:answer|option|choice)\b(?:\W+is\b)?)\W*|答案\W*(?:是|为)?\W*|选\W*)([A-Z])(?=\W*$|\s*[.,:;)*\]、。：，])")
"""A letter that stands alone at the beginning of a reply, or behind words such as `the answer is`; not the article in `A cat`."""
ALONE = re.compile(r"(?<![A-Za-z'’])[A-Z](?![A-Za-z'’])")

ATTEMPTS = 6
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
TIMEOUT_SECONDS = 60.0
MAX_TOKENS = 16
LATER = {408, 409, 425, 429}
"""Besides 5xx: the request is fine, the moment is not."""
UNUSABLE = {400, 413, 422}
"""The server will never answer this question, such as one that is too long; others it may."""


def prompt(question: Question) -> str:
    """The question, its options under letters, and how to answer."""
    language = "zh" if re.search(f"[{IDEOGRAPH}]", question.text) else "en"
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False))
    return f"{question.text}\n{options}\n{ASK[language]}"


def parse(reply: str, options: Sequence[str]) -> int | None:
    """Index of the option that a reply names by its letter or its text; None when it names none or more than one."""
    letters, said = LETTERS[: len(options)], words(reply)
    for letter, option in zip(letters, options, strict=True):
        if said and said in ([letter.casefold()], words(option), [letter.casefold(), *words(option)]):
            return letters.index(letter)
    stated = STATED.search(reply.strip())
    if stated and stated[1] in letters and set(ALONE.findall(reply)) & set(letters) == {stated[1]}:
        return letters.index(stated[1])
    return None


class EndpointJudge(Judge):
    """Trials differ in the order of their options alone: equal requests are sent once."""

    def __init__(
        self,
        endpoint: Endpoint,
        answers: Answers,
        requests: int,
        *,
        attempts: int = ATTEMPTS,
        first_delay_seconds: float = FIRST_DELAY_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ):
        """`requests`: how many are under way at the same time. Raises SetupError when the environment has no key of the endpoint's name."""
        self.endpoint, self.answers, self.requests = endpoint, answers, requests
        self.attempts, self.first_delay_seconds = attempts, first_delay_seconds
        self._stop, self._refusal = threading.Event(), "with empty replies"
        headers = {}
        if endpoint.api_key_env is not None:
            if not (key := os.environ.get(endpoint.api_key_env)):
                raise SetupError(f"{endpoint.api_key_env}: the key of {endpoint.base_url} is not in the environment: set this variable")
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(headers=headers, timeout=timeout_seconds, limits=httpx.Limits(max_connections=requests))
        self._url = f"{endpoint.base_url.rstrip('/')}/chat/completions"

    def choose_all(self, questions: Sequence[Question]) -> list[int | None]:
        """Raises TransientError when the server does not answer for long, SetupError when it never will."""
        prompts = [prompt(question) for question in questions]
        replies = self._replies(dict.fromkeys(prompts))
        chosen = [parse(replies[text], question.options) for text, question in zip(prompts, questions, strict=True)]
        if lost := chosen.count(None):
            logger.warning("%s: %d of %d replies name no option, such as %r", self.endpoint.model, lost, len(chosen), replies[prompts[chosen.index(None)]])
        return chosen

    def _replies(self, prompts: Iterable[str]) -> dict[str, str]:
        """Prompt -> reply, from disk or from the server; empty where the server refused the prompt."""
        keys = {text: self._key(text) for text in prompts}
        found = {text: reply for text, key in keys.items() if (reply := self.answers.get(key)) is not None}
        with ThreadPoolExecutor(self.requests) as pool:
            asked = {pool.submit(self._ask, text): text for text in keys if text not in found}
            try:
                for done in as_completed(asked):
                    found[asked[done]] = done.result()
            except BaseException:  # also a signal to this step: whatever waits to try again stops
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if asked and not any(found.values()):
            raise SetupError(f"{self._url}: refuses every question: {self._refusal}")
        return found

    def _key(self, text: str) -> str:
        return hashlib.sha256(json.dumps([PROMPT_VERSION, self.endpoint.base_url, self.endpoint.model, text]).encode()).hexdigest()

    def _ask(self, text: str) -> str:
        """One reply, with as many attempts as it needs; kept on disk."""
        body = {"model": self.endpoint.model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": MAX_TOKENS}
        problem, delay = "", self.first_delay_seconds
        for attempt in range(self.attempts):
            if attempt and self._stop.wait(random.uniform(0.5, 1) * delay):
                break
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            try:
                response = self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if response.status_code in UNUSABLE:
                self._refusal = response.text[:200]
                return ""
            if response.status_code in LATER or response.status_code >= 500:
                problem = f"HTTP {response.status_code}"
                delay = max(delay, _wait_asked_for(response))
                continue
            self._check(response)
            reply = _content(response)
            if reply is None:
                problem = f"something else than a chat completion: {response.text[:100]!r}"
                continue
            self.answers.put(self._key(text), reply)
            return reply
        raise TransientError(f"{self._url}: no answer after {self.attempts} attempts, at last {problem}: see to the server; answers so far are kept")

    def _check(self, response: httpx.Response) -> None:
        """Raises SetupError for what only the user can change."""
        if response.status_code in (401, 403):
            name = self.endpoint.api_key_env
            raise SetupError(f"{self._url}: refuses {f'the key in {name}' if name else 'requests without a key: set api_key_env'}")
        if response.status_code != 200:
            what = f"HTTP {response.status_code} {response.text[:200]!r}"
            raise SetupError(f"{self._url}: answers {what}: check base_url and the model {self.endpoint.model!r}")


def _wait_asked_for(response: httpx.Response) -> float:
    """Seconds that the server wants us to wait; 0 when it does not say."""
    try:
        return min(float(response.headers.get("retry-after", 0)), LONGEST_DELAY_SECONDS)
    except ValueError:  # a date
        return 0.0


def _content(response: httpx.Response) -> str | None:
    """The reply; None when the response is no chat completion. A completion without text, such as a refusal, is an empty reply."""
    try:
        message = response.json()["choices"][0]["message"]
        return str(message["content"] or "")
    except (ValueError, LookupError, TypeError):
        return None
