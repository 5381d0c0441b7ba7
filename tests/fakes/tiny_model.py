"""A real vision-language model, small and quickly trained, that has learned some answers by heart: what a test's server answers from."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from components.models.build import build_model, build_processor
from components.models.checkpoint import load_model, save_model
from components.models.errors import ModelError
from components.models.generation import answer
from components.models.tokenizer import train_tokenizer
from components.recipe.model import Llm, Model, Vision

SIDE = 32
"""Pictures are squares of so many pixels."""


class Learned(NamedTuple):
    """A question, its picture if any, and the answer."""

    question: str
    picture: Image.Image | None
    answer: str


def learn(samples: Sequence[Learned], folder: Path, steps: int = 120) -> Path:
    """A model folder that has seen each sample `steps` times. Raises AssertionError when that was not enough."""
    config = Model(
        vision=Vision(depth=1, width=32, heads=2, patch=8),
        llm=Llm(hidden=64, layers=2, heads=2, kv_heads=1, ffn=128, vocab=900, tie_embeddings=True, init_std=0.05),
        min_pixels=SIDE * SIDE,
        max_pixels=SIDE * SIDE,
        context=1024,
    )
    tokenizer = train_tokenizer([text for sample in samples for text in (sample.question, sample.answer)], config.llm.vocab)
    processor = build_processor(config, tokenizer)
    model = build_model(config, tokenizer, seed=0).train()
    batches = []
    for sample in samples:
        images = [processor.image(sample.picture)] if sample.picture else []
        mark = "<image>\n" if sample.picture else ""
        messages = [{"role": "user", "content": f"{mark}{sample.question}"}, {"role": "assistant", "content": sample.answer}]
        encoded = processor.encode(messages, [processor.num_image_tokens(SIDE, SIDE)] * len(images))
        inputs = {"input_ids": torch.tensor([encoded.input_ids]), "labels": torch.tensor([encoded.labels])}
        for pixels, grid in images:
            inputs |= {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": torch.from_numpy(grid)}
        batches.append(inputs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            loss = sum(model(**inputs).loss for inputs in batches) / len(batches)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    assert loss.item() < 0.05, f"loss {loss.item()}"
    save_model(model.eval(), processor, folder)
    return folder


def answers_of(folder: Path, max_new_tokens: int = 64) -> Callable[[str, list[Image.Image]], str]:
    """What a ChatServer with `sees` answers from: the model in `folder`, greedily."""

    @cache
    def loaded():
        return load_model(folder)

    def reply(text: str, pictures: list[Image.Image]) -> str:
        try:
            return answer(*loaded(), [pictures[0].convert("RGB") if pictures else None], [text], max_new_tokens=max_new_tokens, batch=1)[0]
        except ModelError:  # longer than its context
            return ""

    return reply
