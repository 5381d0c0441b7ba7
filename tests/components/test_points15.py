"""The eleven acceptance tests of POINTS1.5, one each, by number. Corners and bad input are tested in the rooms."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from components import steps
from components.curation.perplexity import keep_lowest
from components.curation.scorer import Scorer
from components.evaluation.extraction import option
from components.evaluation.scores import weighted_mean
from components.models.build import build_model, build_processor
from components.models.points import PointsForConditionalGeneration
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.models.visual_plan import Native
from components.recipe.model import Model
from components.soup.average import average
from components.soup.greedy import greedy
from components.weights.checkpoint import load_points
from components.weights.convert import convert
from components.weights.served import loads_as, served_names
from tests.components.models.conftest import pack, picture, sample
from tests.components.training.corpus import weights, write_project
from tests.components.weights import conftest as checkpoints
from tests.components.weights.conftest import tensors

own, layout_a, layout_b = checkpoints.own, checkpoints.layout_a, checkpoints.layout_b
model, processor = checkpoints.model, checkpoints.processor
"""Fixtures: a tiny POINTS1.5 with grouped queries, and its folder in every layout."""

TEXTS = ["what is this ?", "a red circle", "how many ?", "two", "这是什么？", "红色的圆形"]


@pytest.fixture(scope="module")
def points():
    """Patches of 14 pixels, as the template's and the sizes' goldens are for."""
    recipe = Model.model_validate(
        {
            "vision": {"depth": 2, "width": 32, "heads": 2, "init_std": 0.08},
            "llm": {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64, "vocab": 320, "init_std": 0.05},
        }
    )
    tokenizer = train_tokenizer(TEXTS, 320)
    return build_model(recipe, tokenizer, 0).eval(), build_processor(recipe, tokenizer)


@torch.no_grad()
def test_01_converting_there_and_back_is_bit_equal_and_logits_differ_by_zero(layout_a, layout_b, tmp_path):
    convert("B", layout_a, tmp_path / "b")
    assert tensors(tmp_path / "b").keys() == tensors(layout_b).keys()
    assert all(torch.equal(tensors(tmp_path / "b")[name], tensor) for name, tensor in tensors(layout_b).items())
    convert("A", tmp_path / "b", tmp_path / "a")
    assert all(torch.equal(tensors(tmp_path / "a")[name], tensor) for name, tensor in tensors(layout_a).items())
    one, other = (load_points(folder, torch.float32) for folder in (layout_a, tmp_path / "b"))
    inputs = sample(one[1], [picture(1)], "what color is it ?", "红色")
    assert float((one[0](**inputs).logits - other[0](**inputs).logits).abs().max()) == 0.0


@torch.no_grad()
def test_02_packed_equals_unpacked_in_the_tower_and_in_the_language_model(points):
    model, processor = points
    samples = [sample(processor, [picture(n, 60 + 40 * n, 90)], *turn) for n, turn in enumerate([("what is this ?", "a red circle"), ("how many ?", "two")])]
    packed = pack(samples)
    assert packed["image_grid_thw"][0].tolist() != packed["image_grid_thw"][1].tolist()
    together = model.vision.patches(packed["pixel_values"], packed["image_grid_thw"])
    apart = torch.cat([model.vision.patches(s["pixel_values"], s["image_grid_thw"]) for s in samples])
    assert (together - apart).abs().max() <= 1e-6
    assert (model(**packed).logits - torch.cat([model(**s).logits for s in samples], 1)).abs().max() <= 1e-5
    learned = [int((s["labels"] != -100).sum()) for s in samples]
    mean = sum(model(**s).loss * n for s, n in zip(samples, learned, strict=True)) / sum(learned)
    assert abs(float(model(**packed).loss - mean)) <= 1e-5


@pytest.mark.parametrize(
    ("height", "width", "min_pixels", "tokens"),
    [
        (480, 640, 3136, 391),
        (336, 336, 3136, 144),
        (10, 2000, 3136, 29),
        (10, 10, 3136, 4),
        (13, 4000, 3136, 36),
        (5000, 7000, 3136, 16_308),
        (1000, 1000, 840**2, 1296),
        (300, 400, 840**2, 910),
        (300, 400, 1280 * 784, 1302),
    ],
)
def test_03_a_picture_takes_the_published_number_of_tokens(points, height, width, min_pixels, tokens):
    assert points[1].within(min_pixels=min_pixels).num_image_tokens(width, height) == tokens
    assert Native(min_pixels, 12_845_056).plan(width, height, 14, 2).num_tokens == tokens


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(text):
    return {"role": "assistant", "content": text}


SEEN = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>\n"
RENDERED = {
    "one picture": ([user(None, "what is this ?"), assistant("a red circle")], f"{SEEN}what is this ?<|im_end|>\n<|im_start|>assistant\na red circle"),
    "two pictures": ([user(None, None, "how many ?"), assistant("two")], f"{SEEN}{SEEN}how many ?<|im_end|>\n<|im_start|>assistant\ntwo"),
    "two turns": (
        [user(None, "what is this ?"), assistant("a red circle"), user("how many ?"), assistant("two")],
        f"{SEEN}what is this ?<|im_end|>\n<|im_start|>assistant\na red circle<|im_end|>\n<|im_start|>user\nhow many ?<|im_end|>\n<|im_start|>assistant\ntwo",
    ),
    "chinese": ([user(None, "这是什么？"), assistant("红色的圆形")], f"{SEEN}这是什么？<|im_end|>\n<|im_start|>assistant\n红色的圆形"),
}


@pytest.mark.parametrize("case", RENDERED)
def test_04_conversations_are_rendered_as_published(points, case):
    messages, expected = RENDERED[case]
    pictures = sum(part is None for message in messages for part in message["content"])
    ids = points[1].encode(messages, [2] * pictures).input_ids
    assert points[1].tokenizer.decode(ids) == f"<|im_start|>user\n{expected}<|im_end|>\n"


@pytest.mark.parametrize("case", RENDERED)
def test_05_answers_and_their_end_are_learned_and_nothing_else(points, case):
    messages, _ = RENDERED[case]
    pictures = sum(part is None for message in messages for part in message["content"])
    labels = [label for label in points[1].encode(messages, [2] * pictures).labels if label != -100]
    assert points[1].tokenizer.decode(labels) == "".join(f"{m['content']}<|im_end|>" for m in messages if m["role"] == "assistant")


def test_06_a_stage_changes_exactly_the_parameters_of_its_groups(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("llm", "vision", "projector", "instruct-a"):
        steps.run(name)
    states = [weights(tmp_path / "out" / name / "data") for name in ("vision", "projector", "instruct-a")]
    changed = [{name for name in one if not torch.equal(one[name], other[name])} for one, other in pairwise(states)]
    everything = set(states[0])
    connector, llm = ({name for name in everything if name.startswith(group)} for group in ("connector.", "llm."))
    assert changed == [connector, connector | llm]


def test_07_perplexity_is_that_of_every_scored_token_and_a_fifth_is_kept(own):
    scorer = Scorer(own)
    conversation = [user("what color is it ?"), assistant("红色")]
    conversation[0]["content"] = "what color is it ?"
    encoded = Processor.from_pretrained(own).encode(conversation, [])
    logs = []
    for place, label in enumerate(encoded.labels):
        if label != -100:
            with torch.no_grad():
                logits = scorer.llm(torch.tensor([encoded.input_ids[:place]])).logits[0, -1]
            logs.append(math.log(torch.softmax(logits.double(), 0)[label]))
    assert encoded.labels[-2] == scorer.processor.stop_token_id  # `<|im_end|>` is scored, the line break behind it is not
    assert scorer.perplexities([conversation])[0] == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-5)
    for rows in (1, 4, 5, 99, 100, 104):
        scores = [float(rows - n) for n in range(rows)]
        kept = keep_lowest(np.array(scores), pa.array([str(n) for n in range(rows)]), 20)
        assert kept.tolist() == [n >= rows - int(0.2 * rows) for n in range(rows)]


def test_08_greedy_soup_takes_what_does_not_lower_it_and_averages_in_full_precision(tmp_path):
    score = {("a",): 0.6, ("b",): 0.6, ("c",): 0.5, ("a", "b"): 0.6, ("a", "b", "c"): 0.59}
    assert greedy(["c", "b", "a"], lambda members: score[tuple(members)]).members == ("a", "b")  # equal is enough, lower is not
    for name, value in (("a", 256.0), ("b", 1.0), ("c", 1.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([value], dtype=torch.bfloat16)}, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    average([tmp_path / name for name in "abc"], tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].item() == 86.0  # sums in bf16 would give 256 / 3 = 85.5


OPTIONS = {"A": "teddy bear", "B": "rabbit", "C": "cat", "D": "dog"}
READ = {
    "A": "A",
    "B.": "B",
    "(C)": "C",
    "B. rabbit": "B",
    "B、rabbit": "B",
    "a": "",
    "A and B": "",
    "选B": "",
    "答案是C": "",
    "<C>": "",
    "d) dog": "D",
    "The dog and the cat": "",
    "Z": "Z",
    "E": "",
}
"""Answer -> option read in it, by both rule sets."""
CHANGED = {
    "A cat is shown here in this picture": ("A", "C"),
    "C" + " x" * 10: ("C", ""),
    "The correct answer is **B**. Here is why: A is wrong because C": ("", "B"),
}
"""Answer -> option read in it in December 2024, in August 2026."""


@pytest.mark.parametrize(("answer", "expected"), [*((a, (e, e)) for a, e in READ.items()), *CHANGED.items()])
def test_09_options_are_read_as_vlmevalkit_reads_them_at_two_dates(answer, expected):
    assert tuple(option(answer, OPTIONS, ruleset) for ruleset in ("vlmevalkit-2024-12", "vlmevalkit-2026-08")) == expected


def test_10_the_papers_row_has_the_mean_that_the_paper_prints():
    """MMBench as two benchmarks of half weight, as recipes/points15.yaml has it."""
    row = {"mathvista": 66.4, "hallusionbench": 50.0, "ocrbench": 83.2, "ai2d": 81.4, "mmvet": 62.2, "mmstar": 61.1, "mmmu": 53.8}
    values, halves = [*row.values(), 80.7, 80.7], [*[1.0] * 7, 0.5, 0.5]
    assert weighted_mean(values, halves) == pytest.approx(67.35)


def test_11_an_exported_folder_loads_here_and_has_the_names_that_sglang_has(own, tmp_path):
    convert("B", own, tmp_path / "b")
    loaded, _ = load_points(tmp_path / "b")
    assert isinstance(loaded, PointsForConditionalGeneration)
    assert {loads_as(name) for name in tensors(tmp_path / "b")} <= served_names(loaded.config)
    config = json.loads(Path(tmp_path, "b", "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["POINTSV15ChatModel"], "pointsv1.5_chat")
    assert config["image_token_id"] == loaded.config.image_token_id
