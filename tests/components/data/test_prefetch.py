"""Worker processes make the batches that the rank itself would have made, a few ahead, and are gone when nobody needs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from components.data.encode import Pictures, Sample, encode
from components.data.loader import Loader, StepBatch
from components.data.prefetch import AHEAD, batches
from components.data.sampler import Order
from components.errors import DataError, TransientError
from components.models.build import build_processor
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.recipe.augment import Augment
from components.recipe.loader import load
from tests.components.training.corpus import MICRO, rows

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
Parts = tuple[Processor, list[Sample]]


def make_parts() -> Parts:
    made = rows(16)["captions"]
    tokenizer = train_tokenizer([m["content"] for r in made for m in r["messages"]], 400)
    processor = build_processor(load(MICRO).model, tokenizer)
    return processor, [encode(r, processor, "chat") for r in made]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return make_parts()


def loader(processor: Processor, samples: list[Sample]) -> Loader:
    pictures = Pictures(processor, augment=Augment(copies=2))
    return Loader(samples, Order(len(samples), 0, "x"), pictures, samples_per_step=6, max_tokens=128, pad_id=processor.pad_token_id)


def equal(a: StepBatch, b: StepBatch) -> bool:
    pairs = zip(a.micro_batches, b.micro_batches, strict=True)
    same = all(x is y is None or torch.equal(x, y) for m, n in pairs for x, y in zip(vars(m).values(), vars(n).values(), strict=True))
    return same and (a.num_answer_tokens, a.num_tokens, a.num_samples) == (b.num_answer_tokens, b.num_tokens, b.num_samples)


@pytest.mark.parametrize("workers", [0, 1, 3, 40])
def test_workers_make_the_same_batches_in_the_same_order_from_any_step_on(parts: Parts, workers: int) -> None:
    expected = [loader(*parts).step(number) for number in range(5, 25)]
    state = torch.random.get_rng_state()
    with batches(loader(*parts), range(5, 25), workers) as ready:
        found = list(ready)
    assert len(found) == 20
    assert all(equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def workers_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children(recursive=True) if p.name() == "pt_data_worker"]


def test_few_steps_are_made_ahead_and_workers_end_with_the_context(parts: Parts) -> None:
    with batches(loader(*parts), range(1000), 2) as ready:
        next(ready)
        workers = workers_of(os.getpid())
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGTERM)  # as to a whole process group: it is for the trainer, who needs batches until it has saved
        made = [next(ready) for _ in range(2 * AHEAD + 3)]
        assert all(equal(batch, loader(*parts).step(number)) for number, batch in enumerate(made, 1))
    assert not psutil.wait_procs(workers, timeout=20)[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_decoded_is_named(parts: Parts, workers: int) -> None:
    processor, samples = parts
    bad = replace(samples[0], id="bad", images=(samples[0].images[0][:-100],))
    with (
        pytest.raises(DataError, match=r"^row bad: [^\n]*image_validity[^\n]*$"),
        batches(loader(processor, [*samples, bad]), range(9), workers) as ready,
    ):
        list(ready)


def go_on_without_the_worker(ready: Iterator[StepBatch]) -> None:
    next(ready)
    workers_of(os.getpid())[0].kill()
    for _ in ready:
        pass


def test_a_worker_that_was_killed_is_a_reason_to_try_again(parts: Parts) -> None:
    with pytest.raises(TransientError, match="lower loader_workers"), batches(loader(*parts), range(1000), 1) as ready:
        go_on_without_the_worker(ready)


KILLED = """
import sys, time
from tests.components.data.test_prefetch import loader, make_parts
from components.data.prefetch import batches
with batches(loader(*make_parts()), range(1000), 2) as ready:
    next(ready)
    print("ready", flush=True)
    time.sleep(100)
"""


def test_workers_end_when_the_trainer_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    trainer = subprocess.Popen([sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "ready\n"
    workers = workers_of(trainer.pid)
    assert len(workers) == 2
    trainer.kill()
    trainer.wait()
    assert not psutil.wait_procs(workers, timeout=30)[1]
