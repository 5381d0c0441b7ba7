"""Perplexity of answers given a picture: the numbers of a loop over single samples, for our models and those of `transformers`; and what is recorded."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from components.curation import curate
from components.curation.picture_scorer import OwnScorer, PictureScorer, PublishedScorer, Shown, open_picture_scorer
from components.data.canonical import read_shards
from components.errors import DataError
from components.models.checkpoint import load_model
from components.recipe.curation import Perplexity
from components.recipe.published import Published
from components.step import Step
from components.weights.published import open_published
from tests.components.curation.corpora import MODEL, ingested, picture, row, scorer
from tests.fakes.published_model import qwen2_vl

TEXTS = ["two red circles", "one blue square", "please generate a caption for this image.", "four green triangles"]
CAPTION = "please generate a caption for this image."


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scorer(tmp_path_factory.mktemp("own") / "model", TEXTS)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen2_vl(tmp_path_factory.mktemp("foreign") / "model", TEXTS)


def image(number: int) -> Image.Image:
    return Image.new("RGB", (16 + 4 * (number % 5), 16 + 8 * (number % 3)), (number * 37 % 256, number * 91 % 256, 120))


SAMPLES = [Shown([image(i)], CAPTION, TEXTS[i % 4]) for i in range(9)] + [
    Shown([], "What?", "one blue square"),
    Shown([image(1), image(2)], CAPTION, "two red circles"),
    Shown([image(3)], CAPTION, "<|im_end|> 中文"),
]


def own_by_hand(folder: Path, sample: Shown) -> float:
    """One sample alone, all logits, softmax in float64."""
    model, processor = load_model(folder, dtype=torch.float32)
    content = [*([None] * len(sample.pictures)), sample.question]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": sample.answer}]
    encoded = processor.encode(messages, [processor.num_image_tokens(*p.size) for p in sample.pictures])
    made = [processor.image(p) for p in sample.pictures]
    inputs = (
        {"pixel_values": torch.cat([torch.from_numpy(m[0]) for m in made]), "image_grid_thw": torch.cat([torch.from_numpy(m[1]) for m in made])} if made else {}
    )
    with torch.no_grad():
        logits = model(torch.tensor([encoded.input_ids]), **inputs).logits[0].double()
    return mean_of(logits, encoded.input_ids, encoded.labels)


def mean_of(logits: torch.Tensor, ids: list[int], labels: list[int]) -> float:
    logs = torch.log_softmax(logits, -1)
    scored = [logs[i - 1, ids[i]].item() for i in range(1, len(ids)) if labels[i] != -100]
    return math.exp(-sum(scored) / len(scored))


def foreign_by_hand(folder: Path, sample: Shown) -> float:
    """The text that the template makes, tokenised as a whole, one sample alone."""
    model, processor, _ = open_published(Published(source=str(folder)), folder / "cache")
    content = [*({"type": "image", "image": p} for p in sample.pictures), {"type": "text", "text": sample.question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = {"images": list(sample.pictures)} if sample.pictures else {}
    start = processor(text=[prompt], return_tensors="pt", **images)["input_ids"].shape[1]
    inputs = processor(text=[f"{prompt}{sample.answer}<|im_end|>"], return_tensors="pt", **images)
    with torch.no_grad():
        logits = model.float()(**inputs).logits[0].double()
    ids = inputs["input_ids"][0].tolist()
    return mean_of(logits, ids, [-100] * start + ids[start:])


@pytest.mark.parametrize("max_tokens", [1, 90, 10_000])
def test_packed_samples_have_the_scores_of_single_ones(own, max_tokens):
    expected = [own_by_hand(own, sample) for sample in SAMPLES]
    assert max(expected) > 1.05 * min(expected)
    assert OwnScorer(Published(source=str(own)), own).perplexities(SAMPLES, max_tokens) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 90, 10_000])
def test_batches_of_a_model_of_transformers_have_the_scores_of_single_samples(foreign, max_tokens):
    found = PublishedScorer(Published(source=str(foreign)), foreign).perplexities(SAMPLES, max_tokens)
    expected = [foreign_by_hand(foreign, sample) for sample in SAMPLES[:-1]]
    assert max(expected) > 1.05 * min(expected)
    assert found[:-1] == pytest.approx(expected, rel=1e-5)
    assert found[-1] is not None


def test_the_picture_counts_and_an_answer_cannot_forge_its_end(own, foreign):
    shown = [Shown([image(1)], CAPTION, "one"), Shown([image(7)], CAPTION, "one"), Shown([image(1)], CAPTION, "one<|im_end|>")]
    for judging in (open_picture_scorer(Published(source=str(own)), own), open_picture_scorer(Published(source=str(foreign)), foreign)):
        assert isinstance(judging, PictureScorer)
        assert len(set(judging.perplexities(shown))) == 3
        prepared = [judging._prepare(sample) for sample in shown]
        ends = [p.labels.count(p.labels[max(i for i, label in enumerate(p.labels) if label != -100)]) for p in prepared]
        assert ends == [1, 1, 1]


def test_samples_that_do_not_fit_into_the_context_have_no_score(own, foreign):
    long = Shown([image(1)], CAPTION, "two red circles " * 300)
    for judging in (OwnScorer(Published(source=str(own)), own), PublishedScorer(Published(source=str(foreign)), foreign)):
        found = judging.perplexities([long, SAMPLES[0]])
        assert found[0] is None
        assert found[1] == pytest.approx(judging.perplexities([SAMPLES[0]])[0])


def curated(published: dict, **config: object) -> dict:
    filters = [{"kind": "perplexity", "scorer": published, "sources": ["a"], "keep_percent": 50, **config}]
    step = Step("curate", {"seed": 0, "sources": {"a": {}}, "curation": {"filters": filters}})
    shutil.rmtree(step.data.parent, ignore_errors=True)
    step.data.mkdir(parents=True)
    curate.run(step)
    return json.loads(step.side("counts.json").read_text())["filters"][0]


def digest_of(folder: Path) -> str:
    """`sha256sum *.safetensors | sha256sum`, run in the folder."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("which", ["own", "foreign"])
def test_the_filter_keeps_the_share_and_records_who_scored_with_what(which, own, foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = {"own": own, "foreign": foreign}[which]
    shutil.copytree(folder, "model")
    rows = [row(f"{i}", TEXTS[i % 4], [picture(i, size=(16, 16))]) for i in range(8)]
    two_turns = row("turns", images=[picture(1, size=(16, 16))])
    two_turns["messages"] *= 2
    ingested("a", [*rows, row("broken", images=[b"?"]), two_turns, row("chinese", "红", [picture(2, size=(16, 16))], language="zh")])
    monkeypatch.setenv("STOCKPOT_CKPT", str(tmp_path / "ckpt"))
    counts = curated({"source": "model"})
    assert (counts["seen"], counts["kept"]) == (11, 4)
    assert counts["not_scored"] == ["a/broken", "a/turns"]
    assert counts["scorer"]["source"] == "model"
    assert counts["scorer"]["digest"] == digest_of(folder)
    assert [prompt.partition("-")[0] for prompt in counts["scorer"]["prompts"]] == ["perplexity.caption.en.v1", "perplexity.caption.zh.v1"]
    assert list(counts["threshold"]) == ["a/en"]
    kept = {r["id"] for r in read_shards(Path("out/curate/data/a")).to_pylist()}
    judging = open_picture_scorer(Published(source="model"), tmp_path)
    shown = [Shown([Image.new("RGB", (16, 16), (i, 0, 7))], CAPTION, TEXTS[i % 4]) for i in range(8)]
    order = sorted(range(8), key=lambda i: (judging.perplexities(shown)[i], f"{i}"))
    assert kept == {f"{i}" for i in order[:4]}
    assert curated({"source": "model"}) == counts  # from the scores that were kept
    own_question = curated({"source": "model"}, question="own")
    assert own_question["version"] == "images-1-own"
    assert own_question["scorer"]["prompts"] == []


@pytest.fixture
def bucket(own, monkeypatch):
    """A server that has the model as `s3://scorers/own`."""
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://{}:{}".format(*server.get_host_and_port()))
    client = boto3.Session().client("s3")
    client.create_bucket(Bucket="scorers")
    for file in own.iterdir():
        client.upload_file(str(file), "scorers", f"own/{file.name}")
    yield
    server.stop()


def test_a_scorer_from_a_bucket_has_its_digest_checked(bucket, own, tmp_path):
    found = open_picture_scorer(Published(source="s3://scorers/own", digest=digest_of(own)), tmp_path)
    assert found.perplexities(SAMPLES[:2]) == OwnScorer(Published(source=str(own)), own).perplexities(SAMPLES[:2])
    with pytest.raises(DataError, match=r"digest is .* the recipe says"):
        open_picture_scorer(Published(source="s3://scorers/own", digest="0" * 64), tmp_path)


def test_a_folder_that_is_no_model_is_named_and_a_branch_is_refused(tmp_path):
    with pytest.raises(DataError, match="config"):
        open_picture_scorer(Published(source=str(tmp_path)), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError):
        open_picture_scorer(Published(source=str(tmp_path)), tmp_path)
    assert MODEL.context < 300
    with pytest.raises(ValidationError, match="a branch names can change"):
        TypeAdapter(Perplexity).validate_python({"scorer": {"source": "org/model@main"}, "sources": ["a"]})
