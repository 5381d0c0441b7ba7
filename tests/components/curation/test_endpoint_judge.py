"""A judge behind an endpoint: asks in letters, reads replies strictly, survives a bad server, and pays for no answer twice."""

import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from components.curation.answers import Answers
from components.curation.endpoint_judge import EndpointJudge, parse, prompt
from components.curation.judge import Question
from components.curation.judges import open_judge
from components.errors import SetupError, TransientError
from components.recipe.curation import Endpoint
from components.step import Step
from tests.fakes.chat_server import ChatServer

OPTIONS = ("red", "blue", "green")


def says(word: str):
    """A model that picks the option `word`, by its letter."""

    def answer(text: str) -> str:
        found = re.search(rf"^([A-Z])\. {word}$", text, re.MULTILINE)
        return found[1] if found else "I cannot say."

    return answer


def judge(server: ChatServer, tmp_path: Path, **settings) -> EndpointJudge:
    endpoint = Endpoint(base_url=server.base_url, model="judge", api_key_env="JUDGE_KEY" if server.key else None)
    return EndpointJudge(endpoint, Answers(tmp_path / "answers.sqlite"), 4, **{"first_delay_seconds": 0.01, "timeout_seconds": 0.3, **settings})


def questions(number: int) -> list[Question]:
    return [Question(f"question {i}", OPTIONS[i % 3 :] + OPTIONS[: i % 3], i) for i in range(number)]


def test_a_question_is_asked_with_lettered_options_in_its_own_language():
    assert prompt(Question("Which?", ("red", "blue"), 0)) == "Which?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    assert prompt(Question("哪个？", ("红", "蓝"), 0)).endswith("\nA. 红\nB. 蓝\n请直接回答选项字母。")


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("A", 0), (" b\n", 1), ("C.", 2), ("(B)", 1), ("**B**", 1), ("B. blue", 1), ("B) Blue.", 1), ("blue", 1), ("Blue.", 1),
        ("The answer is B.", 1), ("Answer: C", 2), ("答案是B。", 1), ("选B", 1), ("B. Because I see it", 1), ("A: the sky is red", 0), ("B、blue", 1),
        ("", None), ("D", None), ("A or B", None), ("A, B", None), ("A cat", None),
         ("I think so", None), ("The answer is A or B.", None), ("red or blue", None),
        ("yes", None), ("...", None), ("Boat", None),
    ],
)  # fmt: skip
def test_a_reply_names_one_option_or_none(reply, index):
    assert parse(reply, OPTIONS) == index


def test_options_that_are_letters_or_sentences_are_read():
    assert parse("B", ("A cat.", "B")) == 1
    assert parse("A. A cat.", ("A cat.", "A dog.")) == 0
    assert parse("红色", ("红色", "蓝色")) == 0


def test_every_question_gets_the_answer_to_itself_and_requests_overlap(tmp_path):
    with ChatServer(says("blue"), key="secret") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUDGE_KEY", "secret")
        server.faults = [("slow", 0.1)] * 40
        asked = questions(40)
        chosen = judge(server, tmp_path, timeout_seconds=30).choose_all(asked)
        assert [q.options[i] for q, i in zip(asked, chosen, strict=True)] == ["blue"] * 40
        assert 1 < server.most_at_once <= 4
        assert all(request["temperature"] == 0 and len(request["messages"]) == 1 for request in server.requests)


def test_no_answer_is_paid_for_twice(tmp_path):
    with ChatServer(says("red")) as server:
        first = judge(server, tmp_path)
        assert first.choose("Which?", OPTIONS, 1) == first.choose("Which?", OPTIONS, 2) == 0
        assert judge(server, tmp_path).choose_all([Question("Which?", OPTIONS, 3)] * 5) == [0] * 5
        assert len(server.requests) == 1
        judge(server, tmp_path).choose("Which?", OPTIONS[::-1], 1)
        assert len(server.requests) == 2
        other = Endpoint(base_url=server.base_url.replace("127.0.0.1", "localhost"), model="judge")
        EndpointJudge(other, Answers(tmp_path / "answers.sqlite"), 1).choose("Which?", OPTIONS, 1)
        assert len(server.requests) == 3


def test_what_was_answered_before_a_failure_is_kept(tmp_path):
    with ChatServer(says("red")) as server:
        server.faults = [("slow", 0)] * 6 + [("status", 500)] * 100
        with pytest.raises(TransientError, match=r"no answer after 2 attempts, at last HTTP 500"):
            judge(server, tmp_path, attempts=2).choose_all(questions(20))
        with sqlite3.connect(tmp_path / "answers.sqlite") as db:
            kept = db.execute("select count(*) from answers").fetchone()[0]
        assert kept == 6
        server.faults, before = [], len(server.requests)
        assert None not in judge(server, tmp_path).choose_all(questions(20))
        assert len(server.requests) == before + 14


@pytest.mark.parametrize(
    "fault",
    [("status", 429), ("status", 500), ("status", 503), ("slow", 1.0), ("garbage", "<html>busy</html>"), ("garbage", '{"choices": []}'), ("hang up", None)],
    ids=str,
)
def test_a_passing_fault_is_tried_again(tmp_path, fault):
    with ChatServer(says("green")) as server:
        server.faults = [fault] * 3
        assert judge(server, tmp_path).choose("Which?", OPTIONS, 0) == 2
        assert len(server.requests) == 4


@pytest.mark.parametrize("fault", [("status", 429), ("slow", 1.0), ("garbage", "no JSON"), ("hang up", None)], ids=str)
def test_a_fault_that_stays_ends_with_a_sentence_that_says_try_later(tmp_path, fault):
    with ChatServer(says("green")) as server:
        server.faults = [fault] * 3
        with pytest.raises(TransientError, match=r"127\.0\.0\.1:\d+/v1/chat/completions: no answer after 3 attempts"):
            judge(server, tmp_path, attempts=3).choose("Which?", OPTIONS, 0)
        assert len(server.requests) == 3


def test_the_time_that_a_busy_server_asks_for_is_waited(tmp_path):
    with ChatServer(says("red")) as server:
        server.faults = [("retry after", 0.4)]
        start = time.monotonic()
        assert judge(server, tmp_path).choose("Which?", OPTIONS, 0) == 0
        assert time.monotonic() - start >= 0.2  # with jitter at least half of it; else 0.01


def test_nobody_listening_says_try_later(tmp_path):
    with ChatServer(says("red")) as server:
        gone = server.base_url
    with pytest.raises(TransientError, match="ConnectError"):
        EndpointJudge(Endpoint(base_url=gone, model="judge"), Answers(tmp_path / "a"), 1, attempts=2, first_delay_seconds=0.01).choose("?", OPTIONS, 0)


def test_replies_that_name_no_option_are_no_verdict_counted_and_not_asked_again(tmp_path, caplog):
    with ChatServer(lambda text: "B" if "question 1\n" in text else None if "question 2\n" in text else "Hard to say.") as server:
        asking = judge(server, tmp_path)
        assert asking.choose_all(questions(3)) == [None, 1, None]
        assert asking.choose_all(questions(3)) == [None, 1, None]
        assert len(server.requests) == 3
        assert "2 of 3 replies name no option, such as 'Hard to say.'" in caplog.text


def test_a_question_that_the_server_refuses_is_no_verdict_unless_it_refuses_all(tmp_path):
    with ChatServer(says("red")) as server:
        server.faults = [("status", 400)]
        assert sorted(judge(server, tmp_path).choose_all(questions(3)), key=str).count(None) == 1
        server.faults = [("status", 422)] * 2
        with pytest.raises(SetupError, match=r"refuses every question: .*fault 422"):
            judge(server, tmp_path).choose_all([Question("a", OPTIONS, 0), Question("b", OPTIONS, 0)])


def test_a_wrong_key_model_or_address_is_the_users_to_mend(tmp_path, monkeypatch):
    with ChatServer(says("red"), key="secret") as server:
        with pytest.raises(SetupError, match="JUDGE_KEY: the key of"):
            judge(server, tmp_path)
        monkeypatch.setenv("JUDGE_KEY", "stale")
        with pytest.raises(SetupError, match="refuses the key in JUDGE_KEY") as caught:
            judge(server, tmp_path).choose("?", OPTIONS, 0)
        assert "stale" not in str(caught.value)
        assert len(server.requests) == 1
    with ChatServer(says("red"), model="other") as server, pytest.raises(SetupError, match=r"no such model judge.*check base_url"):
        judge(server, tmp_path).choose("?", OPTIONS, 0)


def test_the_key_is_neither_in_the_answers_nor_in_requests(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "top-secret")
    with ChatServer(says("red"), key="top-secret") as server:
        judge(server, tmp_path).choose("?", OPTIONS, 0)
        assert "top-secret" not in str(server.requests)
    assert b"top-secret" not in (tmp_path / "answers.sqlite").read_bytes()


def test_answers_that_are_no_database_are_named(tmp_path):
    (tmp_path / "answers.sqlite").write_text("not a database " * 99)
    with pytest.raises(SetupError, match=r"answers\.sqlite: file is not a database"):
        Answers(tmp_path / "answers.sqlite")


def test_several_writers_may_share_the_answers(tmp_path):
    def write(number: int) -> None:
        own = Answers(tmp_path / "answers.sqlite")
        for i in range(20):
            own.put(f"{i}", f"writer {number}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = Answers(tmp_path / "answers.sqlite")
    assert all((answers.get(f"{i}") or "").startswith("writer") for i in range(20))


def test_a_recipe_names_an_endpoint_and_the_environment_the_place_of_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("STOCKPOT_ANSWERS", str(tmp_path / "kept"))
    with ChatServer(says("red")) as server:
        opened = open_judge(Endpoint(base_url=server.base_url + "/", model="judge"), Step("curate", {}))
        assert opened.choose("?", OPTIONS, 0) == 0
    assert (tmp_path / "kept/answers.sqlite").is_file()


def test_an_address_without_http_is_refused():
    with pytest.raises(ValueError, match="does not begin with http"):
        Endpoint(base_url="localhost:8000/v1", model="m")
