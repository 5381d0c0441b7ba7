import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components import models
from components.models.build import build_model
from components.models.checkpoint import load_config, load_model, save_model
from components.models.errors import ModelError
from components.weights.shards import Entry
from tests.components.models.conftest import picture, sample

FILES = ["config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"]
HEAD, EMBEDDING = "llm.lm_head.weight", "llm.model.embed_tokens.weight"


@pytest.fixture
def folder(model, processor, tmp_path):
    save_model(model, processor, tmp_path / "model")
    return tmp_path / "model"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def untied(recipe):
    return recipe.model_copy(update={"llm": recipe.llm.model_copy(update={"tie_embeddings": False})})


def test_a_model_folder_holds_exactly_its_files_and_all_can_be_read(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def test_a_loaded_model_computes_what_the_saved_one_did(model, processor, folder):
    loaded, again = load_model(folder)
    inputs = sample(processor, [picture(1)], "what color is it ?", "red")
    assert not loaded.training
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert loaded.llm.lm_head.weight is loaded.llm.model.embed_tokens.weight
    messages = [{"role": "user", "content": "<image>\n<|im_end|> x"}, {"role": "assistant", "content": "红色"}]
    assert again.encode(messages, [2]) == processor.encode(messages, [2])
    assert again.settings() == processor.settings()
    assert (loaded.generation_config.eos_token_id, loaded.generation_config.do_sample) == (processor.stop_token_id, False)


def test_the_same_model_gives_the_same_bytes_also_after_a_journey(model, processor, folder, tmp_path):
    save_model(model, processor, tmp_path / "again")
    loaded, its_processor = load_model(folder)
    save_model(loaded, its_processor, tmp_path / "elsewhere" / "deep")
    assert contents(tmp_path / "again") == contents(folder)
    assert contents(tmp_path / "elsewhere" / "deep") == contents(folder)
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "elsewhere" / "deep").values())


def test_a_tied_head_is_stored_once_and_an_untied_one_is_stored(recipe, tokenizer, processor, folder, tmp_path):
    assert HEAD not in load_file(folder / "model.safetensors")
    model = build_model(untied(recipe), tokenizer, 0)
    save_model(model, processor, tmp_path / "untied")
    loaded, _ = load_model(tmp_path / "untied")
    assert torch.equal(loaded.llm.lm_head.weight, model.llm.lm_head.weight)
    assert not torch.equal(loaded.llm.lm_head.weight, loaded.llm.model.embed_tokens.weight)


@pytest.mark.parametrize("with_head", [True, False])
def test_a_state_dict_and_a_configuration_are_enough(model, processor, tmp_path, with_head):
    weights = {name: value + 1 for name, value in model.state_dict().items() if with_head or name != HEAD}
    save_model(model.config, processor, tmp_path / "m", weights)
    loaded, _ = load_model(tmp_path / "m")
    assert torch.equal(loaded.llm.lm_head.weight, model.llm.lm_head.weight + 1)
    assert torch.equal(loaded.connector.mlp[2].bias, model.connector.mlp[2].bias + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_loaded_one_by_one_are_written_as_safetensors_writes_them(model, processor, tmp_path, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if name != HEAD}
    save_file({name: weights[name] for name in sorted(weights)}, tmp_path / "theirs", metadata={"format": "pt"})
    stored = {name: Entry(name, tuple(tensor.shape), dtype, lambda tensor=tensor: tensor, "memory") for name, tensor in weights.items()}
    save_model(model.config, processor, tmp_path / "ours", stored)
    assert (tmp_path / "ours/model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_bf16_weights_stay_bf16_unless_asked(model, processor, tmp_path):
    save_model(model.config, processor, tmp_path / "m", {name: value.bfloat16() for name, value in model.state_dict().items()})
    loaded, _ = load_model(tmp_path / "m")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"
    wide, _ = load_model(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(wide.connector.mlp[0].weight, model.connector.mlp[0].weight.bfloat16().float())
    assert loaded.vision.rotary_pos_emb.inv_freq.isfinite().all()


def test_loading_leaves_torchs_random_state_alone(folder):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_model(folder)
    assert torch.equal(torch.rand(2), expected)


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_llm(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    change_json(folder / "config.json", llm={**config["llm"], **values})


def rename_token(folder, token):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace(token, "<|no|>"))
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace(token, "<|no|>"))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


DAMAGE = {
    "no folder": (shutil.rmtree, r"no such model folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: the weights are missing"),
    "weights cut off": (lambda f: os.truncate(f / "model.safetensors", 9000), r"model\.safetensors: cannot be read"),
    "weights empty": (lambda f: os.truncate(f / "model.safetensors", 0), r"model\.safetensors: cannot be read"),
    "weights are a pickle": (lambda f: torch.save({"a": torch.ones(1)}, f / "model.safetensors"), r"model\.safetensors: cannot be read"),
    "tensor missing": (
        lambda f: change_weights(f, lambda w: w.pop("connector.ln_q.bias")),
        r"model\.safetensors: 1 tensors are missing.*connector\.ln_q\.bias",
    ),
    "tensor unknown": (lambda f: change_weights(f, lambda w: w.update(extra=torch.ones(1))), r"model\.safetensors: 1 tensors are not of this model.*extra"),
    "tensor of another shape": (
        lambda f: change_weights(f, lambda w: w.update({"connector.ln_q.bias": torch.ones(3)})),
        r"connector\.ln_q\.bias has the shape \[3\].*\[32\]",
    ),
    "several dtypes": (lambda f: change_weights(f, lambda w: w.update({"connector.ln_q.bias": torch.ones(32).half()})), r"several dtypes"),
    "integers": (lambda f: change_weights(f, lambda w: w.update({n: t.to(torch.int8) for n, t in w.items()})), r"dtype I8"),
    "no configuration": (lambda f: (f / "config.json").unlink(), r"config\.json: cannot be read"),
    "broken configuration": (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read"),
    "a list for a configuration": (lambda f: (f / "config.json").write_text("[]"), r"config\.json: expected a JSON object"),
    "another model": (lambda f: change_json(f / "config.json", model_type="llava"), r"config\.json: model_type is 'llava'"),
    "a wrong type": (lambda f: change_json(f / "config.json", merge="two"), r"config\.json: not a valid configuration: .*merge"),
    "a wrong part": (lambda f: change_json(f / "config.json", vision=3), r"config\.json: not a valid configuration: .*vision"),
    "no generation configuration": (lambda f: (f / "generation_config.json").unlink(), r"generation_config\.json: cannot be read"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), r"processor_config\.json: cannot be read"),
    "an unknown processor key": (lambda f: change_json(f / "processor_config.json", speed=3), r"processor_config\.json: .*speed"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: cannot be read"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"model": 3}'), r"tokenizer\.json: cannot be read"),
    "a tokenizer without special tokens": (lambda f: rename_token(f, "<|im_end|>"), r"lacks the special tokens <\|im_end\|>"),
    "another token for pictures": (lambda f: change_json(f / "config.json", image_token_id=9), r"image_token_id is 9 for the model and 6"),
    "another patch": (lambda f: change_json(f / "processor_config.json", patch=14), r"patch is 8 for the model and 14"),
    "a smaller vocabulary": (lambda f: change_llm(f, vocab_size=280), r"tokenizer has \d+ tokens, the model 280"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence_that_names_the_file(folder, damage):
    act, message = DAMAGE[damage]
    act(folder)
    with pytest.raises(ModelError, match=rf"(?s)^{folder}.*{message}") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_wrong_state_dict_is_refused(model, processor, tmp_path):
    weights = dict(model.state_dict())
    with pytest.raises(ModelError, match="missing, the first is connector"):
        save_model(model, processor, tmp_path / "a", {n: t for n, t in weights.items() if n != "connector.ln_q.weight"})
    with pytest.raises(ModelError, match=f"{HEAD} differs from {EMBEDDING}"):
        save_model(model, processor, tmp_path / "b", {**weights, HEAD: weights[HEAD] + 1})
    with pytest.raises(ModelError, match="no weights"):
        save_model(model.config, processor, tmp_path / "c")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_configuration_can_be_read_alone(folder, model):
    assert load_config(folder).llm.hidden_size == model.config.llm.hidden_size


ALONE = """
import sys, pathlib
from travelling.checkpoint import load_model
from travelling.generation import answer
from PIL import Image
model, processor = load_model(sys.argv[1])
print(answer(model, processor, [Image.new("RGB", (40, 40))], ["what color is it ?"], max_new_tokens=3, batch=1))
print(sorted(m for m in sys.modules if m.split(".")[0] in ("components", "flash_attn", "mlflow", "torchvision")))
"""


def test_the_room_works_alone_under_another_name(folder, tmp_path):
    here = Path(models.__file__).parent
    shutil.copytree(here, tmp_path / "travelling", ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    (tmp_path / "alone.py").write_text(ALONE)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, tmp_path / "alone.py", folder], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "warn" not in done.stderr.lower()
