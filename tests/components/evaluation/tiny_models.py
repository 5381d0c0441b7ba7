"""Small real models that have learned to give one answer to every question, trained in a second each."""

from functools import cache
from pathlib import Path

import torch
from PIL import Image

from components.models.build import build_model, build_processor
from components.models.checkpoint import save_model
from components.models.tokenizer import train_tokenizer
from components.recipe.model import Llm, Model, Vision

TEXTS = ("what color? red", "what color? blue", "what color? green")
CONFIG = Model(
    vision=Vision(depth=1, width=32, heads=2, patch=8),
    llm=Llm(hidden=32, layers=1, heads=2, kv_heads=1, ffn=64, vocab=300, tie_embeddings=True, init_std=0.05),
    min_pixels=1024,
    max_pixels=2304,
    context=96,
)


@cache
def processor():
    return build_processor(CONFIG, train_tokenizer(TEXTS, CONFIG.llm.vocab))


def always(answer: str, folder: Path, seed: int = 0) -> Path:
    """A model directory whose language model gives `answer` to "what color?" about any picture. Tower and connector are as built."""
    model = build_model(CONFIG, processor().tokenizer, seed=0)
    image = processor().image(Image.new("RGB", (40, 40), "white"))
    tokens = [processor().num_image_tokens(40, 40)]
    messages = [{"role": "user", "content": "<image>what color?"}, {"role": "assistant", "content": answer}]
    sample = processor().encode(messages, tokens)
    inputs = {"input_ids": torch.tensor([sample.input_ids]), "labels": torch.tensor([sample.labels]), "image_grid_thw": torch.from_numpy(image[1])}
    optimizer = torch.optim.AdamW(model.llm.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        for _ in range(60):
            pixels = torch.randn(image[0].shape, generator=generator)
            loss = model(pixel_values=pixels, **inputs).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_model(model, processor(), folder)
    return folder
