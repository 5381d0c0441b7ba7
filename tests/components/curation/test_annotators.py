"""Annotators in this process and real models behind a server: what they write, how they choose, what they see of pictures."""

import io
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image
from pydantic import BaseModel

from components.curation.annotator import Question, Request
from components.curation.annotators import open_annotator
from components.curation.pictures import as_sent
from components.curation.writing import Ask
from components.errors import DataError
from components.recipe.annotator import Endpoint
from components.recipe.published import Published
from components.step import Step
from tests.components.curation.corpora import picture, scorer
from tests.fakes.chat_server import ChatServer
from tests.fakes.published_model import qwen2_vl
from tests.fakes.tiny_model import SIDE, Learned, answers_of, learn

STEP = Step("curate", {"seed": 0})


class Verdict(BaseModel):
    ok: bool
    kind: Literal["none", "spelling"]


@pytest.fixture(autouse=True)
def answers(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STOCKPOT_ANSWERS", str(tmp_path / "answers"))
    return tmp_path / "answers"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A Qwen2-VL checkpoint as it is published, small, with random weights."""
    return qwen2_vl(tmp_path_factory.mktemp("qwen2-vl"), ["a red circle"])


def test_a_published_model_writes_in_batches_what_it_writes_alone_and_sees_pictures(published):
    requests = [Request(f"a red circle {'x' * i}?", "p", images=(as_sent(picture(i * 50, size=(20, 30))),) if i % 2 else ()) for i in range(11)]
    asking = open_annotator(Published(source=str(published)), STEP)
    told = [asking._generate({"key": ask}) for ask in [Ask(request, 6) for request in requests]]
    alone = [next(iter(found))[1].text for found in told]
    together = [reply.text for _, reply in sorted(asking._generate({f"{i:02}": ask for i, ask in enumerate([Ask(request, 6) for request in requests])}))]
    assert together == alone
    assert len(set(alone)) > 3
    other = [request._replace(images=(as_sent(picture(240, size=(20, 30))),)) for request in requests if request.images]
    seen = [next(iter(asking._generate({"key": ask})))[1].text for ask in [Ask(request, 6) for request in other]]
    assert seen != [text for text, request in zip(alone, requests, strict=True) if request.images]


def test_what_a_published_model_wrote_is_kept_under_its_weights(published, answers, tmp_path):
    first = open_annotator(Published(source=str(published)), STEP)
    first.write_all([Request("a?", "p")], 4)
    assert (answers / "answers.sqlite").is_file()
    again = open_annotator(Published(source=str(published)), STEP)
    again.model = None  # nothing is computed
    assert again.write_all([Request("a?", "p")], 4) == first.write_all([Request("a?", "p")], 4)
    assert first.name == again.name
    assert first.name.startswith(f"{published} ")


def test_questions_that_do_not_fit_and_words_that_are_no_form_are_none(published):
    asking = open_annotator(Published(source=str(published)), STEP)
    assert asking.write_all([Request("x" * 2000, "p")], 4) == [None]
    assert asking.fill_all([Request("fine?", "p")], Verdict, 8) == [None]
    assert asking.choose("Which?", ["red", "blue"], 0) in (None, 0, 1)


def test_a_folder_that_is_no_such_model_is_named(tmp_path, published):
    with pytest.raises(DataError, match="the weights are missing"):
        open_annotator(Published(source=str(tmp_path)), STEP)
    llm = scorer(tmp_path / "llm", ["red"])
    with pytest.raises(DataError, match=r"llm: not an image-text-to-text model that `transformers` knows"):
        open_annotator(Published(source=str(llm)), STEP)
    with pytest.raises(DataError, match="the recipe says 0000"):
        open_annotator(Published(source=str(published), digest="0" * 64), STEP)


def test_a_real_model_behind_a_server_is_asked_in_words_for_forms_and_about_pictures(tmp_path):
    """It has learned its answers by heart, from the very prompts that the endpoint's annotator sends."""
    samples = [Learned("what colour?", Image.new("RGB", (SIDE, SIDE), color), color) for color in ("red", "blue")]
    with ChatServer(lambda *_: "?", sees=True) as server:  # to see what is sent
        asking = open_annotator(Endpoint(base_url=server.base_url, model="judge"), STEP)
        asking.fill_all([Request("fine: teh cat", "p"), Request("fine: the cat", "p")], Verdict, 64)
        asking.choose_all([Question("Is it red?", ("yes", "no"), 0)])
        prompts = sorted({r["messages"][0]["content"] for r in server.requests})
    replies = {"fine: teh": '{"ok": false, "kind": "spelling"}', "fine: the": '```json\n{"ok": true, "kind": "none"}\n```', "Is it": "The answer is B."}
    samples += [Learned(text, None, next(reply for start, reply in replies.items() if text.startswith(start))) for text in prompts]
    folder = learn(samples, tmp_path / "model")
    with ChatServer(answers_of(folder), sees=True, structured=False, model="real") as server:
        asking = open_annotator(Endpoint(base_url=server.base_url, model="real"), STEP)
        files = [picture_file(color) for color in ("blue", "red")]
        assert asking.write_all([Request("what colour?", "p", images=(file,)) for file in files], 8) == ["blue", "red"]
        forms = asking.fill_all([Request("fine: teh cat", "p"), Request("fine: the cat", "p")], Verdict, 64)
        assert forms == [Verdict(ok=False, kind="spelling"), Verdict(ok=True, kind="none")]
        assert asking.choose("Is it red?", ["yes", "no"], 0) == 1
    stage = tmp_path / "out/stage/data"
    stage.parent.mkdir(parents=True)
    folder.rename(stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        own = open_annotator("stage", STEP)
        assert own.write_all([Request("what colour?", "p", images=(file,)) for file in files], 8) == ["blue", "red"]
        assert own.write_all([Request("x " * 2000, "p")], 8) == [None]


def picture_file(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), color).save(file, "PNG")
    return file.getvalue()
