import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.torch import load_file, save_file

from components.errors import DataError
from components.soup import average as module
from components.soup.average import average

CONFIG = {"model_type": "test", "width": 4}


def folder(path, tensors, config=None, **files):
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config or CONFIG))
    (path / "tokenizer.json").write_text(files.get("tokenizer", '{"vocab": {"a": 0}}'))
    return path


def soup(parent, *models):
    """The average of the given state dicts, as a state dict."""
    parent = Path(parent)
    folders = [folder(parent / f"in-{i}", tensors) for i, tensors in enumerate(models)]
    out = parent / "out"
    out.mkdir()
    average(folders, out)
    return load_file(out / "model.safetensors")


DTYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.float32, torch.float64: np.float64}


@st.composite
def models(draw, equal=False):
    dtype = draw(st.sampled_from(list(DTYPES)))
    shapes = draw(st.dictionaries(st.sampled_from(["llm.a", "vision.b", "connector.c"]), array_shapes(max_dims=3, max_side=4, min_dims=1), min_size=1))
    values = (
        st.floats(-(2.0**15), 2.0**15, width=16) if dtype == torch.float16 else st.floats(-(2.0**100), 2.0**100, width=64 if dtype == torch.float64 else 32)
    )

    def one():
        return {k: torch.from_numpy(draw(arrays(DTYPES[dtype], shape, elements=values))).to(dtype) for k, shape in sorted(shapes.items())}

    if equal:
        return [one()] * draw(st.integers(1, 5))
    return [one() for _ in range(draw(st.integers(1, 4)))]


@settings(max_examples=40, deadline=None)
@given(models(equal=True))
def test_the_mean_of_equal_models_is_the_model_to_the_last_bit(equal):
    with TemporaryDirectory() as parent:
        soup(parent, *equal)
        assert Path(parent, "out/model.safetensors").read_bytes() == Path(parent, "in-0/model.safetensors").read_bytes()


@settings(max_examples=40, deadline=None)
@given(models())
def test_the_mean_lies_between_the_ingredients_and_equals_the_float64_mean(ingredients):
    with TemporaryDirectory() as parent:
        mean = soup(parent, *ingredients)
    assert mean.keys() == ingredients[0].keys()
    for key, value in mean.items():
        stack = torch.stack([m[key] for m in ingredients])
        assert value.dtype == stack.dtype
        slack = 0 if value.dtype != torch.float64 else stack.abs().amax(0) * 1e-15
        assert (value >= stack.amin(0) - slack).all()
        assert (value <= stack.amax(0) + slack).all()
        torch.testing.assert_close(value, stack.double().mean(0).to(value.dtype), rtol=1e-6 if value.dtype != torch.bfloat16 else 8e-3, atol=1e-30)


def test_the_order_of_the_ingredients_does_not_change_a_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    ingredients = [{"w": torch.randn(64, 64, generator=generator) * scale} for scale in (1.0, 0.02, 3.0)]
    results = []
    for i, order in enumerate(permutations(ingredients)):
        (tmp_path / str(i)).mkdir()
        soup(tmp_path / str(i), *order)
        results.append((tmp_path / str(i) / "out/model.safetensors").read_bytes())
    assert len(set(results)) == 1


def test_the_sum_is_not_kept_in_the_models_own_dtype(tmp_path):
    # in bfloat16 256 + 1 is 256, so summing there would give 64.0 (POINTS's published helper does)
    ingredients = [{"w": torch.full((3,), v, dtype=torch.bfloat16)} for v in (256.0, 1.0, 1.0, 2.0)]
    assert soup(tmp_path, *ingredients)["w"].tolist() == [65.0] * 3


def test_one_ingredient_is_copied_byte_for_byte(tmp_path):
    only = folder(tmp_path / "only", {"w": torch.randn(5)})
    (tmp_path / "out").mkdir()
    average([only], tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {p.name: p.read_bytes() for p in only.iterdir()}


def test_frozen_and_integer_tensors_are_copied_and_the_first_ones_files_come_along(tmp_path):
    tower, ids = torch.randn(7), torch.arange(5)
    mean = soup(tmp_path, {"tower": tower, "ids": ids, "w": torch.zeros(2)}, {"tower": tower, "ids": ids, "w": torch.ones(2)})
    assert torch.equal(mean["tower"], tower)
    assert torch.equal(mean["ids"], ids)
    assert mean["w"].tolist() == [0.5, 0.5]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert json.loads((tmp_path / "out/config.json").read_text()) == CONFIG


def test_tensors_of_many_blocks_and_of_none(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    a, b = torch.randn(1000), torch.randn(1000)
    mean = soup(tmp_path, {"w": a, "empty": torch.zeros(0), "one": torch.tensor(1.0)}, {"w": b, "empty": torch.zeros(0), "one": torch.tensor(2.0)})
    assert torch.equal(mean["w"], ((a.double() + b.double()) / 2).float())
    assert mean["empty"].shape == (0,)
    assert mean["one"].item() == 1.5


def test_files_whose_tensors_lie_in_another_order_are_averaged_by_name(tmp_path):
    first, second = folder(tmp_path / "1", {"a": torch.tensor([1.0]), "b": torch.tensor([10.0])}), tmp_path / "2"
    folder(second, {"a": torch.tensor([3.0]), "b": torch.tensor([30.0])})
    header = json.dumps({"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}).encode()
    header += b" " * (-len(header) % 8)
    (second / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + np.array([30, 3], "<f4").tobytes())
    (tmp_path / "out").mkdir()
    average([first, second], tmp_path / "out")
    assert {k: v.item() for k, v in load_file(tmp_path / "out/model.safetensors").items()} == {"a": 2.0, "b": 20.0}


MEASURE = """
import resource, sys
from pathlib import Path
from components.soup.average import average
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
average([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_stays_below_one_tensor(tmp_path):
    folders = [folder(tmp_path / str(i), {"w": torch.full((32 * 2**20,), float(i))}) for i in range(3)]  # 128 MiB each
    (tmp_path / "out").mkdir()
    child = subprocess.run([sys.executable, "-c", MEASURE, tmp_path / "out", *folders], capture_output=True, text=True, check=True)
    assert int(child.stdout) < 64  # MiB
    assert load_file(tmp_path / "out/model.safetensors")["w"].unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"w": torch.zeros(3)}, r"2/model\.safetensors: w: shape \[3\], but \[2\] in .*1/model"),
        ({"w": torch.zeros(2, dtype=torch.float16)}, r"2/model\.safetensors: w: dtype F16, but F32"),
        ({"v": torch.zeros(2)}, r"1/model\.safetensors: v: no such tensor"),
        ({"w": torch.zeros(2), "x": torch.zeros(2)}, r"1/model\.safetensors: x: no such tensor, but .*2/model\.safetensors has it"),
        ({"w": torch.tensor([0.0, float("nan")])}, r"2/model\.safetensors: w: not finite, its training has diverged"),
    ],
)
def test_ingredients_that_do_not_fit_are_named(tmp_path, other, complaint):
    folders = [folder(tmp_path / "1", {"w": torch.ones(2)}), folder(tmp_path / "2", other)]
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=complaint):
        average(folders, tmp_path / "out")


def test_integer_tensors_that_differ_are_named(tmp_path):
    with pytest.raises(DataError, match=r"in-1/model\.safetensors: ids: I64 values cannot be averaged"):
        soup(tmp_path, {"ids": torch.tensor([1])}, {"ids": torch.tensor([2])})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"config": {**CONFIG, "width": 5}}, r"2/config\.json: width: differs from .*1/config\.json"),
        ({"tokenizer": '{"vocab": {"b": 0}}'}, r"2/tokenizer\.json: vocab: differs"),
        ({"tokenizer": "{"}, r"2/tokenizer\.json: not valid JSON"),
    ],
)
def test_another_config_or_tokenizer_is_named(tmp_path, change, complaint):
    folders = [folder(tmp_path / "1", {"w": torch.ones(2)}), folder(tmp_path / "2", {"w": torch.ones(2)}, **change)]
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=complaint):
        average(folders, tmp_path / "out")


def test_a_file_that_one_ingredient_lacks_is_named(tmp_path):
    folders = [folder(tmp_path / n, {"w": torch.ones(2)}) for n in "12"]
    (folders[1] / "tokenizer.json").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"2/tokenizer\.json: not there, but in another candidate"):
        average(folders, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_truncated_weights_are_named(tmp_path, keep):
    folders = [folder(tmp_path / n, {"w": torch.ones(2)}) for n in "12"]
    path = folders[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"2/model\.safetensors: not a whole safetensors file .*run the step that writes it again"):
        average(folders, tmp_path / "out")


def test_missing_weights_are_named(tmp_path):
    only = folder(tmp_path / "1", {"w": torch.ones(2)})
    (only / "model.safetensors").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"1/model\.safetensors: cannot be read"):
        average([only], tmp_path / "out")
