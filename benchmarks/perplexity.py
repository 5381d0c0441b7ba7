"""How much faster are scores of captions given their pictures than a loop that takes one sample after the other, and are they the same numbers?

The model is that of a recipe, with random weights; pictures and captions as `draw` makes them for it. The loop does what published scripts do: encode,
one forward pass with the logits of all places, softmax, mean over the answer. `of_transformers`: the same for a small Qwen2-VL of `transformers`, in
padded batches. Times are CPU seconds of one thread, pictures and text prepared anew by both; the trials take turns. What is saved is the fixed cost of
a pass and the logits of places that are not scored: longer samples (`--side`) save less.
"""

import argparse
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.project import scratch
from benchmarks.result import record
from components.curation.picture_scorer import OwnScorer, PublishedScorer, Shown
from components.curation.prompts import prompt
from components.data.shapes import COLORS, SHAPES, picture, random_scene
from components.data.wording import caption
from components.models.build import build_model, build_processor
from components.models.checkpoint import load_model, save_model
from components.models.tokenizer import train_tokenizer
from components.recipe.loader import find, load
from components.recipe.published import Published
from components.weights.published import open_published
from tests.fakes.published_model import qwen2_vl

RECIPES = Path(__file__).parents[1] / "recipes"

Scores = Callable[[Sequence[Shown]], Sequence[float | None]]


def samples(number: int, side: int) -> list[Shown]:
    """Pictures of shapes, of `side` to twice as many pixels a side, and their captions."""
    question, rng = prompt("perplexity.caption", "en").text, random.Random(0)
    pairs = list(itertools.product(COLORS, SHAPES))
    scenes = [random_scene(rng.choice(pairs), rng.randint(1, 4), side, 2 * side, rng) for _ in range(number)]
    return [Shown([picture(scene)], question, caption(scene, "en", rng)) for scene in scenes]


def mean_of(logits: torch.Tensor, ids: torch.Tensor, first: int, last: int) -> float:
    """exp of the mean negative log-probability of the tokens `first` to `last`."""
    logs = torch.log_softmax(logits[first - 1 : last - 1].float(), -1)
    return math.exp(-logs.gather(1, ids[first:last, None]).mean().item())


def one_at_a_time(folder: Path) -> Scores:
    """The naive loop over a model of ours."""
    model, processor = load_model(folder, dtype=torch.float32)

    @torch.inference_mode()
    def score(shown: Sequence[Shown]) -> list[float | None]:
        found: list[float | None] = []
        for sample in shown:
            messages = [{"role": "user", "content": [None, sample.question]}, {"role": "assistant", "content": sample.answer}]
            encoded = processor.encode(messages, [processor.num_image_tokens(*sample.pictures[0].size)])
            pixels, grid = (torch.from_numpy(array) for array in processor.image(sample.pictures[0]))
            ids = torch.tensor([encoded.input_ids])
            logits = model(ids, pixel_values=pixels, image_grid_thw=grid).logits[0]
            learned = [i for i, label in enumerate(encoded.labels) if label != -100]
            found.append(mean_of(logits, ids[0], learned[0], learned[-1] + 1))
        return found

    return score


def one_at_a_time_of_transformers(folder: Path) -> Scores:
    """The naive loop over a model of `transformers`."""
    model, processor, _ = open_published(Published(source=str(folder)), folder / "cache")
    model = model.float()

    @torch.inference_mode()
    def score(shown: Sequence[Shown]) -> list[float | None]:
        found: list[float | None] = []
        for sample in shown:
            content: list[dict[str, Any]] = [{"type": "image"}, {"type": "text", "text": sample.question}]
            asked = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(text=[f"{asked}{sample.answer}<|im_end|>"], images=list(sample.pictures), return_tensors="pt")
            answer = len(processor.tokenizer(sample.answer, add_special_tokens=False)["input_ids"]) + 1
            ids = inputs["input_ids"][0]
            found.append(mean_of(model(**inputs).logits[0], ids, len(ids) - answer, len(ids)))
        return found

    return score


def compared(naive: Scores, ours: Scores, shown: Sequence[Shown], trials: int) -> dict[str, Any]:
    """Medians of CPU seconds over trials that take turns, their ratio, and the largest relative difference of a perplexity."""
    seconds: dict[Scores, list[float]] = {naive: [], ours: []}
    found: dict[Scores, Sequence[float | None]] = {}
    for scores in (naive, ours):
        scores(shown[:8])
    for trial in range(trials):
        for scores in (naive, ours)[:: 1 if trial % 2 else -1]:
            start = time.process_time()
            found[scores] = scores(shown)
            seconds[scores].append(time.process_time() - start)
    pairs = [(a, b) for a, b in zip(found[naive], found[ours], strict=True) if a is not None and b is not None]
    slow, fast = (statistics.median(seconds[scores]) for scores in (naive, ours))
    return {
        "ratio": round(slow / fast, 2),
        "max_difference": max(abs(a - b) / a for a, b in pairs),
        "scored": len(pairs),
        "samples_per_cpu_second": round(len(shown) / fast, 1),
        "naive_samples_per_cpu_second": round(len(shown) / slow, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny", help="recipe whose model scores (default: tiny)")
    parser.add_argument("--samples", type=int, default=1000, help="samples per trial (default: 1000)")
    parser.add_argument("--side", type=int, default=32, help="shortest side of a picture, pixels; the longest is twice that (default: 32)")
    parser.add_argument("--trials", type=int, default=3, help="trials, the median counts (default: 3)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shown = samples(options.samples, options.side)
    with scratch() as folder:
        config = load(find(options.recipe, RECIPES), []).model
        tokenizer = train_tokenizer([text for sample in shown for text in (sample.question, sample.answer)], config.llm.vocab)
        save_model(build_model(config, tokenizer, seed=0), build_processor(config, tokenizer), folder / "own")
        qwen2_vl(folder / "published", [sample.answer for sample in shown])
        own = compared(one_at_a_time(folder / "own"), OwnScorer(Published(source=str(folder / "own")), folder).perplexities, shown, options.trials)
        published = PublishedScorer(Published(source=str(folder / "published")), folder).perplexities
        foreign = compared(one_at_a_time_of_transformers(folder / "published"), published, shown[: options.samples // 2], options.trials)
    naive = {"own": own.pop("naive_samples_per_cpu_second"), "of_transformers": foreign.pop("naive_samples_per_cpu_second")}
    figures = {"recipe": options.recipe, "samples": len(shown), "side": options.side, **own, "of_transformers": foreign}
    record("perplexity", figures, {"name": "the same model, one sample at a time", "samples_per_cpu_second": naive})


if __name__ == "__main__":
    main()
