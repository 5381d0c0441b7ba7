"""A micro model, its processor, and samples of it; random weights unless a test says otherwise."""

import numpy as np
import pytest
import torch
from PIL import Image

from components.models.build import build_model, build_processor
from components.models.tokenizer import train_tokenizer
from components.recipe.model import Model

TEXTS = ["what color is it ?", "how many shapes are there ?", "two red circles", "one blue square", "这是什么颜色？", "红色的圆形"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe() -> Model:
    return Model.model_validate(
        {
            "vision": {"depth": 2, "width": 32, "heads": 2, "patch": 8, "init_std": 0.08},
            "llm": {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64, "vocab": 320, "tie_embeddings": True, "init_std": 0.05},
            "min_pixels": 1024,
            "max_pixels": 2304,
            "context": 256,
        }
    )


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture(scope="session")
def processor(recipe, tokenizer):
    return build_processor(recipe, tokenizer)


@pytest.fixture
def model(recipe, tokenizer):
    return build_model(recipe, tokenizer, seed=0).eval()


def picture(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def sample(processor, pictures, question, answer):
    """Model inputs of one conversation turn, as tensors with a batch of one."""
    rows = [processor.image(p) for p in pictures]
    messages = [{"role": "user", "content": "<image>\n" * len(pictures) + question}, {"role": "assistant", "content": answer}]
    encoded = processor.encode(messages, [processor.num_image_tokens(*p.size) for p in pictures])
    inputs = {"input_ids": torch.tensor([encoded.input_ids]), "labels": torch.tensor([encoded.labels])}
    if rows:
        inputs["pixel_values"] = torch.cat([torch.from_numpy(values) for values, _ in rows])
        inputs["image_grid_thw"] = torch.cat([torch.from_numpy(grids) for _, grids in rows])
    return inputs


def pack(samples):
    """Samples one behind the other in one row: positions restart, no mask."""
    packed = {name: torch.cat([s[name] for s in samples], 1) for name in ("input_ids", "labels")}
    packed["position_ids"] = torch.cat([torch.arange(s["input_ids"].shape[1])[None] for s in samples], 1)
    for name in ("pixel_values", "image_grid_thw"):
        packed[name] = torch.cat([s[name] for s in samples if name in s])
    return packed
