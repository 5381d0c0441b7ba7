"""An annotator behind an endpoint: asks in letters, in words, for forms and about pictures; survives a bad server, and pays for no answer twice."""

import io
import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from pydantic import BaseModel

from components.curation.annotator import Question, Request
from components.curation.annotators import open_annotator
from components.curation.answers import Answers
from components.curation.endpoint import EndpointAnnotator
from components.curation.pictures import as_sent
from components.errors import SetupError, TransientError
from components.recipe.annotator import Endpoint
from components.step import Step
from tests.components.curation.corpora import picture
from tests.fakes.chat_server import ChatServer

OPTIONS = ("red", "blue", "green")


def says(word: str):
    """A model that picks the option `word`, by its letter."""

    def answer(text: str) -> str:
        found = re.search(rf"^([A-Z])\. {word}$", text, re.MULTILINE)
        return found[1] if found else "I cannot say."

    return answer


def judge(server: ChatServer, tmp_path: Path, **settings) -> EndpointAnnotator:
    endpoint = Endpoint(base_url=server.base_url, model="judge", api_key_env="JUDGE_KEY" if server.key else None)
    return EndpointAnnotator(endpoint, Answers(tmp_path / "answers.sqlite"), 4, **{"first_delay_seconds": 0.01, "timeout_seconds": 0.3, **settings})


def questions(number: int) -> list[Question]:
    return [Question(f"question {i}", OPTIONS[i % 3 :] + OPTIONS[: i % 3], i) for i in range(number)]


def test_a_question_is_asked_with_lettered_options_in_its_own_language(tmp_path):
    with ChatServer(lambda _: "A") as server:
        judge(server, tmp_path).choose_all([Question("Which?", ("red", "blue"), 0), Question("哪个？", ("红", "蓝"), 0)])
        prompts = {request["messages"][0]["content"] for request in server.requests}
    asked = "Which?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    assert prompts == {asked, "哪个？\nA. 红\nB. 蓝\n请直接回答选项字母。"}


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
        EndpointAnnotator(other, Answers(tmp_path / "answers.sqlite"), 1).choose("Which?", OPTIONS, 1)
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
        server.faults = [fault] * 4  # three attempts, and one look at whether it answers anything
        with pytest.raises(TransientError, match=r"127\.0\.0\.1:\d+/v1/chat/completions: no answer after 3 attempts"):
            judge(server, tmp_path, attempts=3).choose("Which?", OPTIONS, 0)
        assert len(server.requests) == 4


@pytest.mark.parametrize("fault", [("status", 429), ("status", 500), ("slow", 1.0), ("garbage", "no JSON"), ("hang up", None)], ids=str)
def test_one_question_that_fails_every_time_is_given_up_when_the_server_answers_others(tmp_path, fault):
    with ChatServer(says("green")) as server:
        server.faults = [fault] * 3
        asking = judge(server, tmp_path, attempts=3)
        assert asking.choose_all([Question("Which?", OPTIONS, 0)]) == [None]
        assert asking.choose_all([Question("Which?", OPTIONS, 0)]) == [2]  # nothing was kept of the failure


def test_a_question_that_breaks_the_server_does_not_take_the_others_along(tmp_path):
    with ChatServer(says("blue")) as server:
        server.broken = "question 3\n"
        chosen = judge(server, tmp_path, attempts=3).choose_all(questions(12))
        assert [i for i, choice in enumerate(chosen) if choice is None] == [3]


def test_the_time_that_a_busy_server_asks_for_is_waited(tmp_path):
    with ChatServer(says("red")) as server:
        server.faults = [("retry after", 0.4)]
        start = time.monotonic()
        assert judge(server, tmp_path).choose("Which?", OPTIONS, 0) == 0
        assert time.monotonic() - start >= 0.4  # else 0.01


def test_nobody_listening_says_try_later(tmp_path):
    with ChatServer(says("red")) as server:
        gone = server.base_url
    with pytest.raises(TransientError, match="ConnectError"):
        EndpointAnnotator(Endpoint(base_url=gone, model="judge"), Answers(tmp_path / "a"), 1, attempts=2, first_delay_seconds=0.01).choose("?", OPTIONS, 0)


def test_replies_that_name_no_option_are_no_verdict_counted_and_not_asked_again(tmp_path, caplog):
    with ChatServer(lambda text: "B" if "question 1\n" in text else None if "question 2\n" in text else "Hard to say.") as server:
        asking = judge(server, tmp_path)
        assert asking.choose_all(questions(3)) == [None, 1, None]
        assert asking.choose_all(questions(3)) == [None, 1, None]
        assert len(server.requests) == 5  # two were told once that this is no answer
        told = [request["messages"] for request in server.requests if len(request["messages"]) == 3]
        assert {m[1]["content"] for m in told} == {"", "Hard to say."}
        assert {m[2]["content"] for m in told} == {"This reply cannot be used. Answer with the option's letter from the given choices directly."}
        assert "2 of 3 answers cannot be used, such as 'Hard to say.'" in caplog.text


def test_a_second_reply_counts(tmp_path):
    with ChatServer(lambda text: "C" if text.startswith("This reply") else "Hmm...") as server:
        assert judge(server, tmp_path).choose_all(questions(3)) == [2, 2, 2]


class Verdict(BaseModel):
    ok: bool


def test_a_form_is_asked_for_with_its_schema_and_servers_without_schemas_are_asked_in_words(tmp_path):
    requests = [Request(f"fine {i}?", "p") for i in range(5)]
    for structured in (True, False):
        with ChatServer(lambda _: '{"ok": true}', structured=structured) as server:
            assert judge(server, tmp_path / str(structured)).fill_all(requests, Verdict, 50) == [Verdict(ok=True)] * 5
            assert all('"ok"' in r["messages"][0]["content"] for r in server.requests)
            refused = [r for r in server.requests if "response_format" in r]
            assert len(refused) == 5 if structured else 1 <= len(refused) <= 4  # it learns, and some are under way
            assert len(server.requests) == 5 + (0 if structured else len(refused))


def test_forms_that_cannot_be_read_are_none(tmp_path):
    with ChatServer(lambda text: '{"ok": true}' if "fine" in text and "2?" not in text else "ok = yes") as server:
        found = judge(server, tmp_path).fill_all([Request(f"fine {i}?", "p") for i in range(4)], Verdict, 50)
    assert found == [Verdict(ok=True), Verdict(ok=True), None, Verdict(ok=True)]


def test_a_text_that_is_cut_off_or_not_fine_is_none(tmp_path):
    with ChatServer(lambda text: "a b c d" if text == "long" else " fine " if text == "good" else "bad") as server:
        asked = [Request(text, "p", system="be brief") for text in ("long", "bad", "good")]
        assert judge(server, tmp_path).write_all(asked, 3, lambda _, said: said != "bad") == [None, None, "fine"]
        assert {r["messages"][0]["content"] for r in server.requests} == {"be brief"}
        assert {r["max_tokens"] for r in server.requests} == {3}


def test_pictures_arrive_as_the_annotator_is_to_see_them(tmp_path):
    def color(_: str, pictures: list[Image.Image]) -> str:
        return " ".join(f"{p.size[0]}x{p.size[1]} {p.convert('RGB').getpixel((0, 0))}" for p in pictures)

    sideways, file = Image.new("RGB", (30, 20), "red"), io.BytesIO()
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(file, "JPEG", exif=exif, quality=100)
    large = io.BytesIO()
    Image.new("L", (3000, 30), 255).save(large, "BMP")
    plain = picture(3)
    with ChatServer(color, sees=True) as server:
        seen = judge(server, tmp_path).write_all([Request("what?", "p", images=(as_sent(plain), as_sent(file.getvalue()), as_sent(large.getvalue())))], 50)
    assert seen == ["5x4 (3, 0, 7) 20x30 (254, 0, 0) 2048x20 (255, 255, 255)"]
    assert as_sent(plain) == plain  # not packed anew without need


def test_answers_depend_on_pictures_wording_and_length(tmp_path):
    with ChatServer(lambda _, pictures: "x", sees=True) as server:
        asking = judge(server, tmp_path)
        for request, length in [(Request("q", "p1"), 9), (Request("q", "p2"), 9), (Request("q", "p1", images=(picture(1),)), 9), (Request("q", "p1"), 8)]:
            before = len(server.requests)
            asking.write_all([request, request], length)
            asking.write_all([request], length)
            assert len(server.requests) == before + 1


def test_no_more_requests_a_minute_than_allowed(tmp_path):
    with ChatServer(says("red")) as server:
        start = time.monotonic()
        judge(server, tmp_path, per_minute=1200).choose_all(questions(9))
        assert time.monotonic() - start >= 8 * 60 / 1200


def test_a_wait_that_the_server_asks_for_holds_all_requests(tmp_path):
    with ChatServer(says("red")) as server:
        server.faults = [("retry after", 0.5)]
        start = time.monotonic()
        judge(server, tmp_path, timeout_seconds=9).choose_all(questions(9))
        assert time.monotonic() - start >= 0.5
        assert len(server.requests) <= 9 + 4  # none of those that came later was refused


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
        opened = open_annotator(Endpoint(base_url=server.base_url + "/", model="judge"), Step("curate", {}))
        assert opened.choose("?", OPTIONS, 0) == 0
    assert (tmp_path / "kept/answers.sqlite").is_file()


def test_an_address_without_http_is_refused():
    with pytest.raises(ValueError, match="does not begin with http"):
        Endpoint(base_url="localhost:8000/v1", model="m")
