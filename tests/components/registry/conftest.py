"""Two small models with random weights, and packages of them; made once."""

import json
import shutil

import pytest
import torch

from components.evaluation.scores import model_digest
from components.models.build import build_model, build_processor
from components.models.checkpoint import save_model
from components.models.tokenizer import train_tokenizer
from components.recipe.model import Model
from components.registry.package import write_package
from components.tracking.store import client, default_uri

RECIPE = Model.model_validate(
    {
        "vision": {"depth": 1, "width": 32, "heads": 2, "patch": 8, "init_std": 0.08},
        "llm": {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 64, "vocab": 300, "tie_embeddings": True, "init_std": 0.05},
        "min_pixels": 1024,
        "max_pixels": 2304,
        "context": 256,
    }
)


def scores_of(overall, digest="m", **more):
    part = {"value": overall, "n": 200, "ci95": [max(0, overall - 0.05), min(1, overall + 0.05)], "failed": 0, "by": {"language": {}, "kind": {}}}
    head = {"schema": 1, "split": "report", "ruleset": "exact-1", "judge": "exact_matching", "counted": ["shapes"], "model_digest": digest}
    return {**head, "overall": overall, "overall_ci95": part["ci95"], "benchmarks": {"shapes": part}, "candidates": {"a": {"overall": overall}}, **more}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two model directories."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["what colour is the circle ?", "red", "blue", "two squares"], 300)
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("models") / f"model-{seed}"
        save_model(build_model(RECIPE, tokenizer, seed), build_processor(RECIPE, tokenizer), folder)
        folders.append(folder)
    return folders


@pytest.fixture(scope="session")
def packaged(models, tmp_path_factory):
    """A package of the first model, with overall 0.5. Do not write into it."""
    folder = tmp_path_factory.mktemp("package") / "data"
    write_package(models[0], scores_of(0.5, model_digest(models[0])), "tiny", folder)
    return folder


@pytest.fixture
def project(models, tmp_path, monkeypatch):
    """A workspace as the step `package` finds it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("name: tiny\n")
    shutil.copytree(models[0], tmp_path / "out/soup/data")
    (tmp_path / "out/evaluate").mkdir()
    (tmp_path / "out/evaluate/scores.json").write_text(json.dumps(scores_of(0.5, model_digest(models[0]))))
    (tmp_path / "out/package/data").mkdir(parents=True)
    return tmp_path


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory):
    """MLflow's SQLite file as a first start leaves it; to be copied, because making one takes seconds."""
    home = tmp_path_factory.mktemp("fresh")
    client(default_uri(home))
    return home / "mlflow.db"
