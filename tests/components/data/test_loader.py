import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from components.data.encode import Pictures, Sample, encode
from components.data.loader import Loader, StepBatch
from components.data.sampler import Order
from components.models.build import build_model, build_processor
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.loader import load
from tests.components.training.corpus import MICRO, row, rows

CAPACITY = 200


@pytest.fixture(scope="module")
def parts() -> tuple[VLMForConditionalGeneration, Processor, list[Sample]]:
    config = load(MICRO).model
    made = rows(24)
    plain = [row(f"text-{i}", "questions", [("How many?", "two"), ("What shape is it?", "a circle")][: 1 + i % 2], None) for i in range(6)]
    everything = made["captions"] + made["questions"] + plain
    random.Random(1).shuffle(everything)
    tokenizer = train_tokenizer([m["content"] for r in everything for m in r["messages"]], 400)
    processor = build_processor(config, tokenizer)
    return build_model(config, tokenizer, seed=0), processor, [encode(r, processor, "chat") for r in everything]


def loader(samples: list[Sample], processor: Processor, **keys: int | bool | None) -> Loader:
    settings = {"samples_per_step": 16, "max_tokens": CAPACITY, "pad_id": processor.pad_token_id, **keys}
    return Loader(samples, Order(len(samples), 0, "x"), Pictures(processor), **settings)  # type: ignore[arg-type]


def unpacked(batch: StepBatch) -> Iterator[tuple[int, ...]]:
    """The token sequences of all samples in a batch, cut where positions restart; padding dropped."""
    for micro in batch.micro_batches:
        for ids, positions in zip(micro.input_ids.tolist(), micro.position_ids.tolist(), strict=True):
            starts = [i for i, p in enumerate(positions) if p == 0]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                yield tuple(ids[start:end])


def stripped(ids: tuple[int, ...], pad: int) -> tuple[int, ...]:
    return ids[: len(ids) - next((i for i, t in enumerate(reversed(ids)) if t != pad), len(ids))]


@pytest.mark.parametrize("long_rows", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_the_ranks_of_a_step_hold_every_sample_once_in_rows_that_are_not_over(parts: tuple, num_ranks: int, long_rows: bool) -> None:
    _, processor, samples = parts
    order = Order(len(samples), 0, "x")
    for step in (0, 3):
        batches = [loader(samples, processor, rank=r, num_ranks=num_ranks, long_rows=long_rows).step(step) for r in range(num_ranks)]
        found = sorted(filter(None, (stripped(ids, processor.pad_token_id) for b in batches for ids in unpacked(b))))
        expected = sorted(tuple(samples[order[i]].input_ids.tolist()) for i in range(step * 16, step * 16 + 16))
        assert found == expected
        assert all(m.input_ids.numel() <= CAPACITY for b in batches for m in b.micro_batches)
        assert len({len(b.micro_batches) for b in batches}) == 1
        assert {b.num_answer_tokens for b in batches} == {sum(samples[order[i]].num_answer_tokens for i in range(step * 16, step * 16 + 16))}
        assert {b.num_tokens for b in batches} == {sum(map(len, expected))}


def test_the_first_label_of_every_sample_and_all_padding_are_not_learned(parts: tuple) -> None:
    _, processor, samples = parts
    for micro in loader(samples, processor, long_rows=True).step(0).micro_batches:
        assert (micro.labels[micro.position_ids == 0] == -100).all()
        assert (micro.labels[micro.input_ids == processor.pad_token_id] == -100).all()
        learned = micro.labels != -100
        assert torch.equal(micro.labels[learned], micro.input_ids[learned])


def total_loss(model: VLMForConditionalGeneration, batches: list[StepBatch]) -> torch.Tensor:
    return sum(
        (model(**m.to(torch.device("cpu")), use_cache=False, num_items_in_batch=b.num_answer_tokens).loss for b in batches for m in b.micro_batches),
        torch.zeros(()),
    )


def gradients(model: VLMForConditionalGeneration, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_packed_stacked_and_single_samples_have_the_same_loss_and_gradients(parts: tuple) -> None:
    model, processor, samples = parts
    order = Order(len(samples), 0, "x")
    chosen = [samples[order[i]] for i in range(16)]
    learned = sum(s.num_answer_tokens for s in chosen)
    pictures = Pictures(processor)
    single = torch.zeros(())
    for i, s in enumerate(chosen):  # one sample a call: nothing to leak from
        patches = pictures.patches(chosen, i)
        seen = {"pixel_values": torch.from_numpy(patches[0][0]), "image_grid_thw": torch.from_numpy(patches[0][1])} if patches else {}
        ids, labels = (torch.from_numpy(a.astype(np.int64))[None] for a in (s.input_ids, s.labels))
        single = single + model(input_ids=ids, labels=labels, num_items_in_batch=learned, **seen).loss
    reference = gradients(model, single)
    for long_rows, num_ranks in ((False, 1), (True, 1), (False, 2), (True, 3)):
        loss = total_loss(model, [loader(samples, processor, rank=r, num_ranks=num_ranks, long_rows=long_rows).step(0) for r in range(num_ranks)])
        assert loss.item() == pytest.approx(single.item(), rel=1e-5)
        assert torch.allclose(gradients(model, loss), reference, atol=1e-5)


def test_packed_rows_are_the_same_however_many_ranks_share_them(parts: tuple) -> None:
    model, processor, samples = parts
    keys = {"samples_per_step": None, "packs_per_step": 4, "long_rows": True}
    alone = loader(samples, processor, **keys)
    expected = sorted(unpacked(alone.step(1)))
    losses = [total_loss(model, [alone.step(1)]).item()]
    for num_ranks in (2, 3, 64):
        batches = [loader(samples, processor, rank=r, num_ranks=num_ranks, **keys).step(1) for r in range(num_ranks)]
        found = sorted(ids for b in batches for ids in unpacked(b))
        blanks = [ids for ids in found if ids == (processor.pad_token_id,)]
        assert sorted(ids for ids in found if ids not in blanks) == [ids for ids in expected if stripped(ids, processor.pad_token_id)]
        assert {b.num_samples for b in batches} == {alone.step(1).num_samples}
        losses.append(total_loss(model, batches).item())
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
    fill = alone.step(0).num_tokens / (4 * CAPACITY)
    assert alone.units_per_epoch * fill * CAPACITY == pytest.approx(sum(map(len, samples)), rel=0.3)


def test_a_step_is_the_same_whether_or_not_the_ones_before_were_made(parts: tuple) -> None:
    _, processor, samples = parts
    used, fresh = loader(samples, processor), loader(samples, processor)
    for step in range(5):
        used.step(step)
    for a, b in zip(used.step(5).micro_batches, fresh.step(5).micro_batches, strict=True):
        assert all(x is y is None or torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_more_ranks_than_samples_leave_blank_micro_batches(parts: tuple) -> None:
    model, processor, samples = parts
    batches = [loader(samples, processor, samples_per_step=2, rank=r, num_ranks=3).step(0) for r in range(3)]
    blank = batches[2].micro_batches
    assert len(blank) == len(batches[0].micro_batches) > 0
    assert all((m.labels == -100).all() and m.pixel_values is None for m in blank)
    assert total_loss(model, [batches[2]]).item() == 0


def test_pictures_beyond_the_cache_are_decoded_again_and_equal(parts: tuple) -> None:
    _, processor, samples = parts
    row_with_picture = next(i for i, s in enumerate(samples) if s.images)
    roomy, tight = Pictures(processor), Pictures(processor, cache_bytes=1)
    (values, grid), (again, grid_again) = roomy.patches(samples, row_with_picture)[0], tight.patches(samples, row_with_picture)[0]
    assert roomy.patches(samples, row_with_picture)[0][0] is values
    assert tight.patches(samples, row_with_picture)[0][0] is not again
    assert np.array_equal(values, again)
    assert np.array_equal(grid, grid_again)
    assert tight.room <= 1
