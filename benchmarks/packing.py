"""How full are packed rows of 4096 tokens, are they the same for any number of processes, and what does packing gain over padding?

Lengths: captions, visual questions and documents in the proportions 5:3:2, pictures of 224 to 1120 pixels in tokens of 28x28, text lognormal.
Baselines on the same samples and the same model: batches of 8 at random, and batches of 8 of like length, padded to their longest.
`bound_padded`: tokens with padding over tokens without, in random batches: what a model whose cost is linear in tokens could gain.
`max_difference`: of the logits of a sample in a packed row and alone.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.result import record
from components.data.packing import WINDOW, Packs, share
from components.data.sampler import Order
from components.models.build import build_model
from components.models.tokenizer import train_tokenizer
from components.models.vlm import VLMForConditionalGeneration
from components.recipe.model import Model

CAPACITY = 4096
BATCH = 8
RANKS = (1, 2, 3, 4, 8, 16, 32, 64)
RECIPE = Model.model_validate(
    {
        "vision": {"depth": 1, "width": 32, "heads": 2, "patch": 8},
        "llm": {"hidden": 256, "layers": 4, "heads": 8, "kv_heads": 2, "ffn": 1024, "vocab": 512},
        "min_pixels": 1024,
        "max_pixels": 4096,
    }
)

Inputs = dict[str, torch.Tensor]


def lengths(number: int, seed: int = 0) -> list[int]:
    """Tokens of `number` samples of a realistic mixture, none over the capacity."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, number, p=[0.5, 0.3, 0.2])
    side = np.select([kind == 0, kind == 1, kind == 2], [rng.uniform(224, 672, number), rng.uniform(224, 896, number), rng.uniform(560, 1120, number)])
    aspect = np.exp(rng.normal(0, 0.25, number))
    image = np.maximum(4, np.round(side * np.sqrt(aspect) / 28) * np.round(side / np.sqrt(aspect) / 28)).astype(int)
    texts = [rng.lognormal(4.2, 0.6, number), rng.lognormal(5.0, 0.8, number), rng.lognormal(6.0, 0.7, number)]
    text = np.select([kind == 0, kind == 1, kind == 2], texts).astype(int) + 24
    return np.minimum(image + text, CAPACITY).tolist()


def rows(sizes: list[int], ranks: int = 1, window: int = WINDOW) -> list[list[int]]:
    """The packed rows of one epoch, as `ranks` processes share them, put together again."""
    packs = Packs(sizes, Order(len(sizes), 0, "benchmark"), CAPACITY, window)
    found = [packs[i] for i in range(packs.per_epoch)]
    shares = share([sum(sizes[n] for n in row) for row in found], ranks)
    assert sorted(i for part in shares for i in part) == list(range(len(found)))
    together = {i: found[i] for part in shares for i in part}
    return [together[i] for i in range(len(found))]


def fill(sizes: list[int], packed: list[list[int]]) -> float:
    """Tokens over room."""
    return sum(sizes) / (len(packed) * CAPACITY)


def padded(sizes: list[int], batches: list[list[int]]) -> Iterator[Inputs]:
    """Batches of samples of random tokens, padded on the right."""
    for batch in batches:
        longest = max(sizes[n] for n in batch)
        mask = torch.tensor([[1] * sizes[n] + [0] * (longest - sizes[n]) for n in batch])
        ids = torch.randint(10, 250, mask.shape, generator=torch.Generator().manual_seed(batch[0]))
        yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def packed_rows(sizes: list[int], packed: list[list[int]]) -> Iterator[Inputs]:
    """Packed rows of random tokens."""
    for row in packed:
        places = torch.cat([torch.arange(sizes[n]) for n in row])[None]
        ids = torch.randint(10, 250, places.shape, generator=torch.Generator().manual_seed(row[0]))
        yield {"input_ids": ids, "position_ids": places, "labels": ids.masked_fill(places == 0, -100)}


@torch.no_grad()
def max_difference(model: VLMForConditionalGeneration, sizes: list[int], packed: list[list[int]]) -> float:
    """Largest difference between the logits of packed rows and those of their samples one by one."""
    largest = 0.0
    for row, inputs in zip(packed, packed_rows(sizes, packed), strict=True):
        together = model(inputs["input_ids"], inputs["position_ids"], use_cache=False).logits.split([sizes[n] for n in row], dim=1)
        alone = [model(ids, use_cache=False).logits for ids in inputs["input_ids"].split([sizes[n] for n in row], dim=1)]
        largest = max(largest, *((a - b).abs().max().item() for a, b in zip(together, alone, strict=True)))
    return largest


def rate(model: VLMForConditionalGeneration, make: Callable[[], Iterator[Inputs]], tokens: int) -> tuple[float, float]:
    """Useful tokens a second of forward and backward: by the wall, and by the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for inputs in make():
        model(**inputs, use_cache=False).loss.backward()
        model.zero_grad()
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)


def throughput(sizes: list[int], trials: int) -> dict[str, dict[str, float]]:
    """Name of the batching -> medians over interleaved trials; `checks`: what does not depend on time."""
    mixed, grouped = random.Random(0).sample(range(len(sizes)), len(sizes)), sorted(range(len(sizes)), key=lambda n: sizes[n])
    mixed_batches, grouped_batches = ([order[i : i + BATCH] for i in range(0, len(order), BATCH)] for order in (mixed, grouped))
    packed = rows(sizes)
    tokenizer = train_tokenizer(["a"], 512)
    sdpa, varlen = (build_model(RECIPE, tokenizer, 0, attn_implementation=name).train() for name in ("sdpa", "varlen"))
    runs: dict[str, tuple[VLMForConditionalGeneration, Callable[[], Iterator[Inputs]]]] = {
        "random": (sdpa, lambda: padded(sizes, mixed_batches)),
        "grouped": (sdpa, lambda: padded(sizes, grouped_batches)),
        "packed": (varlen, lambda: packed_rows(sizes, packed)),
    }
    measured = {name: [rate(*run, sum(sizes)) for _ in range(trials)] for name, run in runs.items()}
    medians = {
        name: {
            "tokens_per_second": statistics.median(w for w, _ in rates),
            "tokens_per_cpu_second": statistics.median(c for _, c in rates),
        }
        for name, rates in measured.items()
    }
    waste = sum(len(b) * max(sizes[n] for n in b) for b in mixed_batches) / sum(sizes)
    return medians | {"checks": {"bound": waste, "max_difference": max_difference(varlen, sizes, packed[:4])}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200_000, help="samples that are packed (default: 200000)")
    parser.add_argument("--trained", type=int, default=64, help="samples that are trained on, per trial (default: 64)")
    parser.add_argument("--trials", type=int, default=3, help="trials, the median counts (default: 3)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = lengths(options.samples)
    began = time.process_time()
    packed = rows(sizes)
    seconds = time.process_time() - began
    few = sizes[:20_000]
    speed = throughput(lengths(options.trained, 1), options.trials)
    by = {name: speed[name]["tokens_per_cpu_second"] for name in ("random", "grouped", "packed")}
    figures = {
        "capacity": CAPACITY,
        "window": WINDOW,
        "samples": len(sizes),
        "rows": len(packed),
        "fill": round(fill(sizes, packed), 5),
        "microseconds_a_sample": round(1e6 * seconds / len(sizes), 1),
        "same_packs": [ranks for ranks in RANKS if rows(few, ranks) == rows(few)],
        "packed": {key: round(value, 1) for key, value in speed["packed"].items()},
        "bound_padded": round(speed["checks"]["bound"], 3),
        "ratio_padded": round(by["packed"] / by["random"], 3),
        "share_of_bound": round(by["packed"] / by["random"] / speed["checks"]["bound"], 3),
        "ratio_grouped": round(by["packed"] / by["grouped"], 3),
        "max_difference": speed["checks"]["max_difference"],
    }
    baseline = {
        "name": f"padded batches of {BATCH}, random and grouped by length; same model, same samples",
        **{f"{name}_{key}": round(value, 1) for name in ("random", "grouped") for key, value in speed[name].items()},
    }
    record("packing", figures, baseline)


if __name__ == "__main__":
    main()
