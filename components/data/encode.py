"""Canonical rows -> encoded samples. Text is encoded once, up front; pictures are decoded when a step needs them.

The number of tokens of every sample is therefore known before training, on every process, without a picture being decoded.
"""

import io
import signal
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from components.data.augment import rng_of, vary
from components.data.canonical import IMAGE_MARK, read_shards
from components.data.held_out import Split, split_of
from components.data.images import ImageError, decode, orientation, size
from components.data.sampler import in_subset
from components.errors import DataError, TransientError
from components.models.processor import Processor
from components.recipe.augment import Augment
from components.recipe.held_out import HeldOut

PART = 256
"""Rows that a worker encodes at a time."""
IGNORE = -100
"""Label of a token that is not learned."""

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations whose upright picture has width and height exchanged."""

CACHE_BYTES = 512 * 2**20
"""Patch rows that are kept between epochs, bytes per process."""


@dataclass(frozen=True)
class Sample:
    """One encoded row; what it costs is its number of tokens, vision tokens included."""

    id: str
    input_ids: np.ndarray
    """int32 (tokens,)"""
    labels: np.ndarray
    """int32 (tokens,); IGNORE where nothing is learned, also at the first token: nothing comes before it"""
    images: tuple[bytes, ...]
    """compressed pictures, in the order of their marks"""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_answer_tokens(self) -> int:
        """Tokens that are learned."""
        return int((self.labels != IGNORE).sum())


def read_split(folders: Iterable[Path], split: Split, held_out: HeldOut) -> list[dict[str, Any]]:
    """The rows of all folders, in order, that are in `split`. Keys: id, source, language, category, images, messages.

    One that the mixture repeats is trained on as often, and held out once.
    """
    columns = ["id", "source", "language", "category", "images", "messages"]
    rows = [row for folder in folders for row in read_shards(folder, columns).to_pylist() if split_of(row, held_out) == split]
    return rows if split == "train" else list({(row["source"], row["id"]): row for row in rows}.values())


def read_rows(folders: Iterable[Path], percent: int = 100, subset_seed: int = 0, held_out: HeldOut | None = None) -> list[dict[str, Any]]:
    """The rows to train on: those of `read_split`, or the share of them that `subset_seed` draws. Raises DataError when nothing is left."""
    folders = list(folders)
    rows = [r for r in read_split(folders, "train", held_out or HeldOut()) if in_subset(r["source"], r["id"], percent, subset_seed)]
    if not rows:
        where = ", ".join(map(str, folders))
        raise DataError(f"{where}: no rows are left for this stage: check data.sources and data.percent, and what curation dropped (its verdicts say why)")
    return rows


def without_images(row: dict[str, Any]) -> dict[str, Any]:
    """The row as text alone: pictures dropped, their marks removed with the line break that follows."""
    messages = [{**m, "content": m["content"].replace(IMAGE_MARK + "\n", "").replace(IMAGE_MARK, "").strip()} for m in row["messages"]]
    return {**row, "images": [], "messages": messages}


def texts(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    """What a tokenizer learns from: every message behind its role, without picture marks."""
    for row in rows:
        for message in without_images(row)["messages"]:
            yield f"{message['role']}\n{message['content']}"


def upright_size(image_bytes: bytes) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone. Raises ImageError, as `size`, and OSError."""
    width, height = size(image_bytes, max_pixels=sys.maxsize)
    with Image.open(io.BytesIO(image_bytes)) as image:
        return (height, width) if orientation(image) in SIDEWAYS else (width, height)


def encode(row: dict[str, Any], processor: Processor, template: Literal["chat", "plain"]) -> Sample:
    """One row with its text as tokens. Raises DataError that names the row when text or picture cannot be used."""
    pictures = _pictures(row)
    try:
        counts = [processor.num_image_tokens(*upright_size(picture)) for picture in pictures]
        encoded = processor.encode(row["messages"], counts, template)
    except (ValueError, OSError) as error:
        raise DataError(f"{row['source']}: row {row['id']}: {error}: let curation's image_validity filter look at it first") from error
    labels = np.asarray(encoded.labels, dtype=np.int32)
    labels[:1] = IGNORE
    return Sample(row["id"], np.asarray(encoded.input_ids, dtype=np.int32), labels, pictures)


def encode_all(rows: Sequence[dict[str, Any]], processor: Processor, template: Literal["chat", "plain"], workers: int = 0) -> list[Sample]:
    """All rows, in order, by `workers` processes or by this one: the same samples.

    Raises DataError of the first row that cannot be used, TransientError when a process was killed.
    """
    if not workers:
        return [encode(row, processor, template) for row in rows]
    parts = [range(start, min(start + PART, len(rows))) for start in range(0, len(rows), PART)]
    try:
        with ProcessPoolExecutor(workers, get_context("fork"), _begin, (rows, processor, template)) as pool:  # what is forked need not be sent
            found = [text for part in pool.map(_texts, parts) for text in part]
    except BrokenProcessPool as error:
        raise TransientError("a process that encodes rows was killed: give the machine more memory, or lower loader_workers in the profile") from error
    return [Sample(row["id"], *text, _pictures(row)) for row, text in zip(rows, found, strict=True)]


_work: dict[str, Any] = {}
"""What a worker of `encode_all` works on."""


def _begin(rows: Sequence[dict[str, Any]], processor: Processor, template: Literal["chat", "plain"]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _work.update(rows=rows, processor=processor, template=template)


def _texts(numbers: range) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels of these rows; the pictures stay where they are."""
    samples = [encode(_work["rows"][n], _work["processor"], _work["template"]) for n in numbers]
    return [(sample.input_ids, sample.labels) for sample in samples]


def _pictures(row: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(image["bytes"] for image in row["images"])


class Pictures:
    """Patch rows of pictures, kept for the next epoch as far as `cache_bytes` goes (least recently used leaves first).

    With `augment`, copy 0 is the picture itself and the others are varied, each always in the same way for one `seed`.
    """

    def __init__(self, processor: Processor, cache_bytes: int = CACHE_BYTES, augment: Augment | None = None, seed: int = 0) -> None:
        self.processor, self.room, self.augment, self.seed = processor, cache_bytes, augment, seed
        self._kept: OrderedDict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()

    @property
    def copies(self) -> int:
        """Copies of a picture that there are, itself included."""
        return 1 + (self.augment.copies if self.augment else 0)

    def patches(self, samples: Sequence[Sample], row: int, copy: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """For every picture of samples[row]: patches float32 (P, D) and grids int64 (views, 3). Raises DataError."""
        return [self._patches(samples[row], (row, n, copy)) for n in range(len(samples[row].images))]

    def _patches(self, sample: Sample, key: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        _, number, copy = key
        try:
            picture = decode(sample.images[number], max_pixels=sys.maxsize)  # curation has refused what is too large
            if self.augment and copy:
                picture = vary(self.processor.resize(picture), self.augment, rng_of(self.seed, sample.id, number, copy))
            made = self.processor.image(picture)
        except ImageError as error:
            raise DataError(f"row {sample.id}: {error}: let curation's image_validity filter look at it first") from error
        self._kept[key] = made
        self.room -= made[0].nbytes
        while self.room < 0:
            _, (old, _) = self._kept.popitem(last=False)
            self.room += old.nbytes
        return made
