"""A tiny POINTS1.5 with grouped queries and an untied head, in all layouts, with and without the tower's dead merger."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.models.build import build_model, build_processor
from components.models.checkpoint import save_model
from components.models.tokenizer import train_tokenizer
from components.recipe.model import Model
from components.weights.convert import convert

RECIPE = Model.model_validate(
    {
        "vision": {"depth": 2, "width": 32, "heads": 2, "patch": 4, "init_std": 0.1},
        "llm": {"hidden": 48, "layers": 3, "heads": 6, "kv_heads": 2, "ffn": 80, "vocab": 320, "rms_eps": 1e-5, "init_std": 0.2},
        "min_pixels": 256,
        "max_pixels": 1024,
        "context": 128,
    }
)


@pytest.fixture(scope="session")
def model():
    torch.set_num_threads(1)
    model = build_model(RECIPE, train_tokenizer(["what color is it ?", "红色"], 320), 0).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():  # biases begin as zeros, norms as ones: a test of the mapping needs them to differ
            if p.ndim == 1:
                p.normal_(1, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.fixture(scope="session")
def processor():
    return build_processor(RECIPE, train_tokenizer(["what color is it ?", "红色"], 320))


@pytest.fixture(scope="session")
def own(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "own"
    save_model(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def layout_b(own):
    """Layout B as published checkpoints are: in bf16, with the dead merger, in several shards."""
    convert("B", own, own.parent / "small", torch.bfloat16)
    folder = own.parent / "small"
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    shapes = {"ln_q.weight": [32], "ln_q.bias": [32], "mlp.0.weight": [128, 128], "mlp.0.bias": [128], "mlp.2.weight": [48, 128], "mlp.2.bias": [48]}
    dead = {f"vision_encoder.merger.{name}": torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}
    save_file(weights | dead, folder / "model.safetensors", metadata={"format": "pt"})
    convert("B", folder, own.parent / "b", shard_bytes=60_000)
    return own.parent / "b"


@pytest.fixture(scope="session")
def layout_a(layout_b):
    convert("A", layout_b, layout_b.parent / "a", shard_bytes=60_000)
    return layout_b.parent / "a"


def tensors(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def change_json(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
