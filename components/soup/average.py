"""The uniform mean of model directories, tensor by tensor in blocks: memory does not grow with the models.

Sums are kept in float64 and rounded once. A block costs the same time in float32 (the disk decides), and in float64 the sum of
float32 or narrower weights of usual spread is exact, so that the order of the ingredients does not change the result.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch

from components.errors import DataError
from components.soup.ingredients import WEIGHTS, Ingredient, check_files, check_tensors

BLOCK = 2**20
"""Bytes of a tensor that are in memory at a time, per ingredient."""

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' dtype names of what can be averaged; tensors of all other dtypes must be equal in all ingredients."""


def average(folders: list[Path], out: Path) -> None:
    """Writes the mean of the model directories `folders` as the model directory `out`, which must exist.

    One ingredient is copied byte for byte. Of several, every tensor is the elementwise mean in the ingredients' dtype; values that
    are equal in all (a frozen tower) are copied; config, tokenizer and processor are the first one's, checked to be equal.
    Raises DataError that names file and key when ingredients differ in keys, shapes, dtypes, integer values, config or tokenizer,
    when a file is damaged, or when a weight is not finite.
    """
    for name in check_files(folders):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folders[0] / name, out / name)
    with ExitStack() as stack:
        ingredients = [stack.enter_context(Ingredient(folder)) for folder in folders]
        check_tensors(ingredients)
        if len(folders) == 1:
            shutil.copyfile(folders[0] / WEIGHTS, out / WEIGHTS)
            return
        file = stack.enter_context((out / WEIGHTS).open("wb"))
        first = ingredients[0]
        file.write(len(first.header).to_bytes(8, "little") + first.header)  # same keys, dtypes and shapes: the same header
        buffers = [torch.empty(BLOCK, dtype=torch.uint8) for _ in folders]
        for key in first.in_file_order():
            _average_tensor(ingredients, key, buffers, file)


def _average_tensor(ingredients: list[Ingredient], key: str, buffers: list[torch.Tensor], file: BinaryIO) -> None:
    tensor = ingredients[0].tensors[key]
    begin, end = tensor["data_offsets"]
    for offset in range(0, end - begin, BLOCK):
        blocks = [b[: min(BLOCK, end - begin - offset)] for b in buffers]
        for ingredient, block in zip(ingredients, blocks, strict=True):
            ingredient.read_into(key, offset, block.numpy().data)
        different = [not torch.equal(blocks[0], other) for other in blocks[1:]]
        if any(different) and tensor["dtype"] not in FLOATS:
            path = ingredients[1 + different.index(True)].path
            raise DataError(f"{path}: {key}: {tensor['dtype']} values cannot be averaged and differ from {ingredients[0].path}: store weights as float")
        mean = _mean([b.view(FLOATS[tensor["dtype"]]) for b in blocks], ingredients, key).view(torch.uint8) if any(different) else blocks[0]
        file.write(mean.numpy().data)


def _mean(blocks: list[torch.Tensor], ingredients: list[Ingredient], key: str) -> torch.Tensor:
    """Elementwise mean of 1-D float blocks, in their dtype."""
    total = blocks[0].to(torch.float64)
    for block in blocks[1:]:
        total += block
    if not torch.isfinite(total).all():
        for ingredient, block in zip(ingredients, blocks, strict=True):
            if not torch.isfinite(block).all():
                raise DataError(f"{ingredient.path}: {key}: not finite, its training has diverged: lower this candidate's learning rate or remove it")
    return total.div_(len(blocks)).to(blocks[0].dtype)
