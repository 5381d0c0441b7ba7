"""Perplexity: the right number for every row however rows are batched, and exactly the asked share is kept."""

import math
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.curation.perplexity import Perplexity, keep_lowest
from components.curation.row import without_marks
from components.curation.scorer import Scorer, batches
from components.errors import DataError
from components.models.checkpoint import load_model
from components.recipe.curation import Perplexity as Config
from components.step import Step
from tests.components.curation.corpora import MODEL, row, scorer, table

TEXTS = ["two red circles", "one blue square", "What do you see?", "four green triangles and three black crosses"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scorer(tmp_path_factory.mktemp("llm") / "data", TEXTS)


def conversation(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


CONVERSATIONS = [
    conversation("<image>\nWhat do you see?", "two red circles"),
    conversation("What?", "one"),
    conversation("<image>\nWhat do you see?", "circles two red"),
    conversation("<image>\nHow many?", "four", "And what?", "four green triangles", "Sure?", "one blue square and so on"),
    conversation("<image>\nWhat do you see?", "two red circles"),
    conversation("", "<|im_end|> 中文 é"),
]


def by_hand(folder: Path, messages: list[dict[str, str]]) -> float:
    """One token after the other, one forward pass each: exp(-1/N sum log P(token | everything before it))."""
    model, processor = load_model(folder)
    encoded = processor.encode(without_marks(messages), [])
    logs = []
    for place, label in enumerate(encoded.labels):
        if label != -100:
            assert label == encoded.input_ids[place]
            with torch.no_grad():
                logits = model.llm(torch.tensor([encoded.input_ids[:place]])).logits[0, -1]
            logs.append(math.log(torch.softmax(logits.double(), 0)[label].item()))
    return math.exp(-sum(logs) / len(logs))


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_scores_equal_a_loop_over_single_tokens(model, max_tokens):
    expected = [by_hand(model, messages) for messages in CONVERSATIONS]
    assert max(expected) > 1.05 * min(expected)
    assert Scorer(model).perplexities(CONVERSATIONS, max_tokens) == pytest.approx(expected, rel=2e-5)


def test_the_end_of_an_answer_is_scored_with_it(model):
    processor = load_model(model)[1]
    encoded = processor.encode(without_marks(CONVERSATIONS[1]), [])
    scored = [token for token in encoded.labels if token != -100]
    assert processor.tokenizer.decode(scored) == "one<|im_end|>"


def test_equal_texts_get_equal_scores_in_whatever_company(model):
    one = Scorer(model)
    together = one.perplexities(CONVERSATIONS)
    assert together[0] == together[4]
    assert one.perplexities(CONVERSATIONS[:1])[0] == together[0]  # another batch, the same number


def test_the_picture_mark_does_not_change_the_score(model):
    marked, plain = conversation("<image>\nWhat?", "one"), conversation("What?", "one")
    assert len(set(Scorer(model).perplexities([marked, plain]))) == 1


def test_a_text_longer_than_the_context_is_not_scored(model):
    long = conversation("What?", "two red circles " * MODEL.context)
    assert Scorer(model).perplexities([long, CONVERSATIONS[0]]).tolist()[0] == math.inf


def test_a_scorer_that_diverged_or_is_damaged_gives_a_sentence(model, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: torch.full_like(w, math.nan) for n, w in weights.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="diverged"):
        Scorer(tmp_path).perplexities(CONVERSATIONS)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        Scorer(tmp_path)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
@settings(deadline=None)
def test_batches_hold_every_sample_once_and_are_never_too_large(lengths, max_tokens):
    found = batches(lengths, max_tokens)
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_tokens


@given(st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 1e300]), st.integers(0, 99)), max_size=60, unique_by=lambda x: x[1]), st.integers(1, 100))
@settings(max_examples=300, deadline=None)
def test_exactly_the_share_is_kept_the_lowest_first_and_ties_by_id(rows, percent):
    scores, ids = [s for s, _ in rows], [f"{i:02d}" for _, i in rows]
    kept = [(s, i) for s, i, k in zip(scores, ids, keep_lowest(np.array(scores, dtype=float), pa.array(ids, pa.string()), percent), strict=True) if k]
    assert len(kept) == math.floor(Fraction(len(rows) * percent, 100))
    assert sorted(kept) == sorted(zip(scores, ids, strict=True))[: len(kept)]


@given(st.permutations(range(12)), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_which_rows_are_kept_does_not_depend_on_their_order(order, percent):
    scores, ids = np.arange(12) // 4 * 1.0, np.array([chr(97 + i * 7 % 12) for i in range(12)])
    kept = set(ids[keep_lowest(scores, pa.array(ids.tolist()), percent)])
    assert kept == set(ids[order][keep_lowest(scores[order], pa.array(ids[order].tolist()), percent)])


def judged(rows: list[tuple[str, str, str, float | None]], keep_percent: int = 50) -> tuple[Perplexity, pa.Table]:
    """Rows: id, source, language, score."""
    judging = Perplexity(Config(sources=["a", "b"], keep_percent=keep_percent), Step("curate", {}))
    columns = dict(zip(("id", "source", "language", "facts"), map(list, zip(*rows, strict=True)), strict=True))
    return judging, judging.judge(pa.table(columns))


def test_every_source_and_language_is_ranked_by_itself():
    groups = [("a", "en", 100.0), ("a", "zh", 1.0), ("b", "en", 50.0)]
    rows = [(f"{s}{language}{i}", s, language, base + i) for i in range(5) for s, language, base in groups]
    judging, verdicts = judged(rows)
    kept = [r[0] for r, action in zip(rows, verdicts["action"].to_pylist(), strict=True) if action == "keep"]
    assert sorted(kept) == ["aen0", "aen1", "azh0", "azh1", "ben0", "ben1"]
    assert judging.thresholds() == {"a/en": 101.0, "a/zh": 2.0, "b/en": 51.0}
    assert verdicts["score"].to_pylist() == [r[3] for r in rows]
    assert not judging.looks_at("c")


def test_rows_that_could_not_be_scored_are_not_ranked_and_named():
    scores = [None, 3.0, 1.0, None, 2.0, 5.0]
    judging, verdicts = judged([(f"{i}", "a", "en", score) for i, score in enumerate(scores)])
    assert verdicts["action"].to_pylist() == ["drop", "drop", "keep", "drop", "keep", "drop"]
    assert verdicts["reason"].to_pylist() == ["not_scored", "high_perplexity", "", "not_scored", "", "high_perplexity"]
    assert judging.record()["not_scored"] == ["a/0", "a/3"]
    assert judging.thresholds() == {"a/en": 2.0}
    assert judged([("0", "a", "en", None)])[0].thresholds() == {}


def test_a_text_that_is_too_long_is_not_scored_and_the_others_are(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "out/llm/data")
    rows = [row("long", "two red circles " * MODEL.context), row("short", "two red circles")]
    facts = Perplexity(Config(sources=["a"]), Step("curate", {})).facts(table(rows).select(["messages"]))
    assert [fact is None for fact in facts.to_pylist()] == [True, False]
