"""Objective `contrastive`: the losses against hand-written ones, the cut into ranks and micro-batches, and that a tower learns by it."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components import steps
from components.data.encode import Pictures, Sample, encode
from components.data.held_out import split_of
from components.data.loader import Loader
from components.data.sampler import Order
from components.errors import DataError, TransientError
from components.models.build import build_model, build_processor
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.held_out import HeldOut
from components.recipe.loader import load
from components.recipe.training import Contrastive
from components.training import contrastive
from components.training.contrastive import LARGEST_SCALE, TwoTowers, captions
from components.training.contrastive_loss import negatives, sigmoid_loss, softmax_loss
from tests.components.training.corpus import MICRO, losses, row, rows, weights, write_project

ROOT = Path(__file__).parents[3]
KINDS = ["softmax", "sigmoid"]
CAPTIONS = torch.tensor([5, 9, 5, 7, 8, 9, 1])
"""Seven pairs: the first and third have equal captions, and the second and sixth."""


def vision(loss: str, **keys: object) -> str:
    """A contrastive stage in place of micro.yaml's captioning."""
    stage = {"objective": "contrastive", "contrastive": {"loss": loss, "width": 16}, "trainable": {"vision": {}, "llm": {"lr": 1e-3}}, "lr": 2e-3}
    stage |= {"data": {"sources": ["captions"], "template": "plain"}, "batch": {"samples": 8, "max_tokens": 256}, "schedule": {"steps": 8}}
    return f"stages.vision={json.dumps(stage | keys)}"


def unit(seed: int, number: int = 7) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(number, 6, generator=torch.Generator().manual_seed(seed)), dim=-1).requires_grad_()


def by_hand(kind: str, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The papers' formulas, pair by pair."""
    number, total = len(images), torch.zeros(())
    for i in range(number):
        others = [j for j in range(number) if j == i or CAPTIONS[j] != CAPTIONS[i]]
        if kind == "softmax":
            to_text = sum((torch.exp(scale * images[i] @ texts[j]) for j in others), torch.zeros(()))
            to_image = sum((torch.exp(scale * texts[i] @ images[j]) for j in others), torch.zeros(()))
            own = scale * images[i] @ texts[i]
            total = total - (own - to_text.log() + own - to_image.log()) / (2 * number)
        else:
            for j in others:
                z = 1 if i == j else -1
                total = total - torch.log(1 / (1 + torch.exp(-z * (scale * images[i] @ texts[j] + bias)))) / number
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [[0, 7], [0, 3, 7], [0, 1, 1, 4, 7]])
def test_the_parts_of_the_ranks_add_up_to_the_papers_loss_and_gradients(kind: str, cuts: list[int]) -> None:
    images, texts, scale, bias = unit(0), unit(1), torch.tensor(7.0, requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    inputs = [images, texts, scale, bias]
    expected = by_hand(kind, images, texts, scale, bias)
    parts = []
    for start, end in itertools.pairwise(cuts):
        mine = slice(start, end)
        wrong = negatives(CAPTIONS, mine)
        parts.append(
            softmax_loss(images, texts, scale, wrong=wrong, rows=mine)
            if kind == "softmax"
            else sigmoid_loss(images, texts, scale, bias, wrong=wrong, rows=mine),
        )
    assert torch.stack(parts).sum().item() == pytest.approx(expected.item(), rel=1e-5)
    ours = torch.autograd.grad(torch.stack(parts).sum(), inputs, materialize_grads=True)
    theirs = torch.autograd.grad(expected, inputs, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_without_equal_captions_the_softmax_is_plain_cross_entropy() -> None:
    images, texts, scale = unit(0), unit(1), torch.tensor(7.0)
    logits = scale * images @ texts.T
    own = torch.arange(7)
    expected = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    assert softmax_loss(images, texts, scale, wrong=negatives(own, slice(0, 7)), rows=slice(0, 7)).item() == pytest.approx(expected.item(), rel=1e-6)


Parts = tuple[VLMForConditionalGeneration, Processor, list[Sample]]


@pytest.fixture
def parts() -> Parts:
    config = load(MICRO).model
    made = rows(24)["captions"]
    tokenizer = train_tokenizer([m["content"] for r in made for m in r["messages"]], 400)
    processor = build_processor(config, tokenizer)
    return build_model(config, tokenizer, seed=0).train(), processor, [encode(r, processor, "plain") for r in made]


def loader(samples: list[Sample], processor: Processor, max_tokens: int, long_rows: bool = False) -> Loader:
    order = Order(len(samples), 0, "x")
    return Loader(samples, order, Pictures(processor), samples_per_step=16, max_tokens=max_tokens, pad_id=processor.pad_token_id, long_rows=long_rows)


class Engine:
    """What `backward` uses of DeepSpeed's engine, on one rank."""

    def __init__(self, module: TwoTowers) -> None:
        self.module, self.device = module, torch.device("cpu")

    def __call__(self, **inputs: Any) -> Any:
        return self.module(**inputs)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_has_one_loss_and_gradient_however_it_is_cut_into_micro_batches(parts: Parts, kind: str) -> None:
    model, processor, samples = parts
    found = []
    for max_tokens, long_rows in ((4096, False), (4096, True), (128, False), (100, True)):
        learner = TwoTowers(model, Contrastive(loss=kind, width=16), 0)  # pyright: ignore[reportArgumentType]
        learner.zero_grad()
        batch = loader(samples, processor, max_tokens, long_rows).step(0)
        loss = contrastive.backward(Engine(learner), batch)
        gradients = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
        found.append((len(batch.micro_batches), loss, gradients))
    assert found[0][0] == 1
    assert found[2][0] == 3
    for _, loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        assert gradients.keys() == found[0][2].keys()
        assert all(torch.allclose(gradients[name], found[0][2][name], atol=1e-5) for name in gradients)
    learned = {name for name in found[0][2] if found[0][2][name].abs().sum() > 0}
    expected = {name for group, names in TwoTowers(model, Contrastive(width=16), 0).groups().items() if group != "connector" for name in names}
    assert learned == expected - ({"heads.bias"} if kind == "softmax" else set())


def test_a_pair_is_a_picture_and_its_caption_and_sees_nothing_of_its_neighbours(parts: Parts) -> None:
    model, processor, samples = parts
    learner = TwoTowers(model, Contrastive(width=16), 0).eval()
    together = loader(samples, processor, 4096, long_rows=True).all()
    assert len(together) == 1
    with torch.no_grad():
        embedded = learner(**together[0].to(torch.device("cpu")))
        order = packed_order(together[0].input_ids, together[0].position_ids, samples)
        for place, number in enumerate(order[:5]):
            alone = learner(**loader([samples[number]], processor, 4096).all()[0].to(torch.device("cpu")))
            assert torch.allclose(alone.images[0], embedded.images[place], atol=1e-5)
            assert torch.allclose(alone.texts[0], embedded.texts[place], atol=1e-5)
            caption = samples[number].input_ids[samples[number].labels != -100]
            states = model.llm.model(input_ids=torch.from_numpy(caption.astype("int64"))[None], use_cache=False).last_hidden_state
            assert torch.allclose(torch.nn.functional.normalize(learner.heads.text(states[0, -1]), dim=-1), embedded.texts[place], atol=1e-5)
            values, grid = Pictures(processor).patches(samples, number)[0]
            mean = model.vision.patches(torch.from_numpy(values), torch.from_numpy(grid)).mean(0)
            assert torch.allclose(torch.nn.functional.normalize(learner.heads.image(mean), dim=-1), embedded.images[place], atol=1e-5)
    assert torch.allclose(embedded.images.norm(dim=-1), torch.ones(24))


def packed_order(ids: torch.Tensor, places: torch.Tensor, samples: list[Sample]) -> list[int]:
    """Numbers of the samples as they stand in the rows."""
    known = {tuple(s.input_ids.tolist()): n for n, s in enumerate(samples)}
    found = []
    for row_ids, row_places in zip(ids.tolist(), places.tolist(), strict=True):
        starts = [i for i, p in enumerate(row_places) if p == 0]
        found += [known[key] for a, b in zip(starts, [*starts[1:], len(row_ids)], strict=True) if (key := tuple(row_ids[a:b])) in known]
    return found


def test_equal_captions_are_known_by_their_tokens(parts: Parts) -> None:
    _, processor, samples = parts
    caption = rows(1)["captions"][0]
    twice = [encode(r, processor, "plain") for r in (caption, {**caption, "id": "again"}, rows(2)["captions"][1])]
    micro = loader(twice, processor, 4096).all()[0]
    found = captions(micro)
    assert len(found) == 3
    assert len(found.unique()) == 2
    assert len(captions(loader(samples, processor, 4096).all()[0])) == 24


def test_a_rank_without_samples_goes_through_all_that_learns_with_no_effect(parts: Parts) -> None:
    model, processor, samples = parts
    blank = loader(samples, processor, 4096)._blank()
    learner = TwoTowers(model, Contrastive(loss="sigmoid", width=16), 0)
    embedded = learner(**blank.to(torch.device("cpu")))
    assert len(embedded.images) == len(embedded.texts) == len(captions(blank)) == 0
    learner.zero_grad()
    (embedded.images.sum() + embedded.texts.sum() + 0 * (embedded.scale + embedded.bias)).backward()
    touched = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert touched == {name for group, names in learner.groups().items() if group != "connector" for name in names}
    assert all(p.grad is None or not p.grad.any() for p in learner.parameters())


def test_the_scale_stops_at_a_hundred_and_can_come_back(parts: Parts) -> None:
    heads = TwoTowers(parts[0], Contrastive(width=16), 0).heads
    assert heads(torch.randn(2, 32), torch.randn(2, 32)).scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        heads.log_scale.fill_(math.log(300))
    for direction, gradient in ((-1, 0.0), (1, LARGEST_SCALE)):
        heads.zero_grad()
        scale = heads(torch.randn(2, 32), torch.randn(2, 32)).scale
        assert scale.item() == pytest.approx(LARGEST_SCALE)
        (direction * scale).backward()
        assert heads.log_scale.grad is not None
        assert heads.log_scale.grad.item() == pytest.approx(gradient)


@pytest.fixture
def workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_vision_stage_leaves_a_model_from_which_the_next_stages_go_on(workspace: Path, kind: str) -> None:
    write_project(workspace, overrides=[vision(kind)])
    for name in ("vision", "projector", "instruct-a"):
        steps.run(name)
    start, pretrained, aligned = (weights(workspace / "out" / name / "data") for name in ("llm", "vision", "projector"))
    assert start.keys() == pretrained.keys()
    assert {name.split(".")[0] for name in start if not torch.equal(start[name], pretrained[name])} == {"vision", "llm"}
    assert {name.split(".")[0] for name in start if not torch.equal(pretrained[name], aligned[name])} == {"connector"}
    assert all(math.isfinite(loss) for loss in losses(workspace, "vision"))
    before = {p.name: p.read_bytes() for p in Path("out/vision").rglob("*") if p.is_file()}
    steps.run("vision")
    assert {p.name: p.read_bytes() for p in Path("out/vision").rglob("*") if p.is_file()} == before


def test_a_head_of_its_own_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [vision("softmax", weight_decay=0.5), "model.llm.tie_embeddings=false"]
    write_project(tmp_path, overrides=overrides)
    monkeypatch.chdir(tmp_path)
    steps.run("llm")
    steps.run("vision")
    before, after = (weights(tmp_path / "out" / name / "data") for name in ("llm", "vision"))
    assert torch.equal(before["llm.lm_head.weight"], after["llm.lm_head.weight"])
    assert not torch.equal(before["llm.model.embed_tokens.weight"], after["llm.model.embed_tokens.weight"])


SYSTEM = ["model.vision={encoder: intern_vit, depth: 1, width: 32, heads: 2, patch: 8}", "model.resolution={kind: tiles, size: 32, max_tiles: 4}"]
SYSTEM += ["model.connector={pool: pixel_unshuffle}"]


def test_a_picture_of_several_tiles_is_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, overrides=[vision("softmax"), *SYSTEM])
    monkeypatch.chdir(tmp_path)
    for name in ("llm", "vision"):
        steps.run(name)
    assert len(losses(tmp_path, "vision")) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_learns_which_caption_belongs_to_a_picture_it_has_not_seen(workspace: Path, kind: str) -> None:
    stage = vision(kind, schedule={"steps": 150, "warmup": 0.1}, batch={"samples": 32, "max_tokens": 512})
    write_project(workspace, number=300, overrides=[stage, "held_out={selection: 15}"])
    steps.run("vision")
    held = [r for r in rows(300)["captions"] if split_of(r, HeldOut(selection=15)) == "selection"]
    texts = [r["messages"][1]["content"] for r in held]
    chance = sum(map(texts.count, texts)) / len(texts) ** 2
    curve = [line.split(",") for line in Path("out/vision/curve.csv").read_text().splitlines()[1:]]
    assert float(curve[-1][3]) > 5 * chance
    assert float(curve[-1][2]) < float(curve[0][2])


def test_a_stage_that_is_stopped_goes_on_bit_identically(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(workspace, overrides=[vision("sigmoid", schedule={"steps": 40}, batch={"samples": 8, "max_tokens": 64}), "held_out={selection: 10}"])

    def outputs() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in Path("out/vision").rglob("*") if p.is_file()}

    steps.run("vision")
    unbroken = outputs()
    monkeypatch.setenv("STOCKPOT_CKPT", str(tmp_path / "ckpt"))
    monkeypatch.setenv("STOCKPOT_UNIT", str(tmp_path))

    def stop_once_it_trains() -> None:
        while not (tmp_path / "metrics.jsonl").exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_once_it_trains)
    stopper.start()
    with pytest.raises(TransientError, match=r"^vision: stopped, step \d+ saved$"):
        steps.run("vision")
    stopper.join()
    steps.run("vision")
    assert outputs() == unbroken


def test_a_row_without_a_picture_is_named(workspace: Path) -> None:
    write_project(
        workspace, overrides=[vision("softmax", data={"sources": ["questions"], "template": "plain"})], extra=[row("text", "questions", [("a", "b")], None)]
    )
    with pytest.raises(DataError, match=r"questions: row text has no picture: objective contrastive"):
        steps.run("vision")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


STAGES = ["0", "1", "2", "3"]


@pytest.fixture(scope="module", params=KINDS)
def runs(request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every rank saw, by `zeroSTAGE-ofRANKS-rankRANK`; three samples to a step and small micro-batches: ranks have different numbers of both."""
    workspace, out = tmp_path_factory.mktemp("ranks") / "project", tmp_path_factory.mktemp("seen")
    shutil.copytree(project, workspace)
    write_project(workspace, overrides=[vision(request.param, batch={"samples": 7, "max_tokens": 64})])
    for num_ranks in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}", "-m", "tests.components.training.rank"]
        subprocess.run([*command, "vision", str(out), *STAGES], cwd=workspace, env=environment(), check=True, timeout=300)
    return {p.stem: {**json.loads(p.read_text()), "weights": load_file(p.with_suffix(".safetensors"))} for p in out.glob("*.json")}


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_have_the_losses_and_weights_of_one_under_every_zero_stage(runs: dict[str, Any], stage: str) -> None:
    alone = runs["zero0-of1-rank0"]
    for run in (f"zero{stage}-of1-rank0", f"zero{stage}-of2-rank0", f"zero{stage}-of2-rank1"):
        assert runs[run]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert runs[run]["weights"].keys() == alone["weights"].keys()
        assert all(torch.allclose(runs[run]["weights"][name], alone["weights"][name], atol=1e-4) for name in alone["weights"]), run
