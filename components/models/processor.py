"""The processor: pictures to patch rows, conversations to token ids and labels. Token counts of pictures are their visual plan's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from .errors import ModelError
from .images import CLIP_MEAN, CLIP_STD, normalisation_table, patch_rows, views
from .json_file import read_json, write_json
from .template import Messages, Piece, Template, chat, num_images, plain
from .tokenizer import END_OF_TEXT, IM_END, IMAGE_PAD, SPECIAL_TOKENS
from .visual_plan import Resolution, VisualPlan, from_dict, to_dict, within

IGNORED = -100
CONFIG, TOKENIZER, TOKENIZER_CONFIG = "processor_config.json", "tokenizer.json", "tokenizer_config.json"
TOKENIZER_SETTINGS = {"clean_up_tokenization_spaces": False}
CACHED_PIECES = 100_000
"""Texts whose ids are remembered: questions, prompts and short answers of a corpus repeat."""


@dataclass(frozen=True)
class Encoded:
    """One sample as ids; labels are the ids to learn and -100 elsewhere. The first label is always -100, so samples can be packed as they are."""

    input_ids: list[int]
    labels: list[int]


class Processor:
    """Turns pictures and conversations into model inputs.

    `patch`, `merge`, `temporal_patch`: as in the tower. `resolution`: how pictures become views. `mean`, `std`: of the channels, of values in [0, 1].
    It can be pickled.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        patch: int,
        merge: int,
        temporal_patch: int,
        resolution: Resolution,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        self.tokenizer = tokenizer
        self.patch, self.merge, self.temporal_patch = patch, merge, temporal_patch
        self.resolution, self.mean, self.std = resolution, tuple(mean), tuple(std)
        resolution.check(patch, merge)
        self._table = normalisation_table(self.mean, self.std)
        known = tokenizer.get_vocab()
        if missing := [token for token in (*SPECIAL_TOKENS[:5], IMAGE_PAD) if token not in known]:
            raise ModelError(f"the tokenizer lacks the special tokens {', '.join(missing)}: use one with Qwen2-VL's special tokens.")
        self._special = {token: known[token] for token in SPECIAL_TOKENS if token in known}
        self.image_token_id, self.stop_token_id, self.pad_token_id = known[IMAGE_PAD], known[IM_END], known[END_OF_TEXT]
        # A copy that reads special tokens in text as plain text: users cannot forge them.
        self._text = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._text.encode_special_tokens = True
        self._text.no_padding()
        self._text.no_truncation()
        self._pieces: dict[str, list[int]] = {}

    def __reduce__(self) -> tuple:
        return partial(Processor, self.tokenizer, **self.settings()), ()

    def settings(self) -> dict[str, Any]:
        """What the processor is made of, besides the tokenizer."""
        return {name: getattr(self, name) for name in ("patch", "merge", "temporal_patch", "resolution", "mean", "std")}

    def within(self, **bounds: int | None) -> "Processor":
        """The same with other bounds of the resolution, see `visual_plan.within`; itself where none is given. Raises ModelError."""
        if all(value is None for value in bounds.values()):
            return self
        return Processor(self.tokenizer, **{**self.settings(), "resolution": within(self.resolution, **bounds)})

    def plan(self, width: int, height: int) -> VisualPlan:
        """What becomes of a picture of this size. Raises ModelError for one that is too long and thin."""
        return self.resolution.plan(width, height, self.patch, self.merge)

    def num_image_tokens(self, width: int, height: int) -> int:
        """Tokens that a picture of this size takes in the language model. Raises ModelError as `plan`."""
        return self.plan(width, height).num_tokens

    def resize(self, image: Image.Image) -> Image.Image:
        """The picture as large as the tower sees it; `image` gives the same patch rows for it. One of several views stays as it is: its tiles and
        its thumbnail come from the same pixels. Raises ModelError as `plan`."""
        plan = self.plan(*image.size)
        return self._views(image, plan)[0] if len(plan.grids) == 1 else image

    def image(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Patch rows (P, 3 * temporal_patch * patch^2) float32 of all views, and their grids int64 (views, 3) in patches. Raises ModelError as `plan`."""
        plan = self.plan(*image.size)
        rows = [patch_rows(view, plan.view, self.patch, self.merge, self.temporal_patch, table=self._table) for view in self._views(image, plan)]
        return np.concatenate(rows) if len(rows) > 1 else rows[0], np.array(plan.grids, dtype=np.int64)

    def _views(self, image: Image.Image, plan: VisualPlan) -> list[Image.Image]:
        return views(image, plan, background=tuple(int(value * 255) for value in self.mean))

    def encode(self, messages: Messages, image_tokens: Sequence[int], template: Template = "chat") -> Encoded:
        """A training sample. `image_tokens` holds the token count of every picture, in order of appearance.

        chat: loss on answers and their `<|im_end|>`. plain: pictures, then the answers' text; loss on that text and `<|im_end|>`.
        Raises ModelError when the number of pictures differs from that of the marks (chat), or for an unknown role.
        """
        if template == "plain":
            return self._encode(plain(messages, len(image_tokens)), image_tokens)
        _check_pictures(messages, image_tokens)
        return self._encode(chat(messages), image_tokens)

    def prompt(self, messages: Messages, image_tokens: Sequence[int]) -> list[int]:
        """Ids up to where the assistant's answer begins. The last message must be the user's; raises ModelError as `encode`."""
        _check_pictures(messages, image_tokens)
        return self._encode(chat(messages, generation_prompt=True), image_tokens).input_ids

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text in which nothing is a special token. The list is shared: do not change it."""
        ids = self._pieces.get(text)
        if ids is None:
            ids = self._text.encode(text, add_special_tokens=False).ids
            if len(self._pieces) < CACHED_PIECES:
                self._pieces[text] = ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._text.decode(list(ids), skip_special_tokens=True)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and processor_config.json.

        Not by the tokenizer's own method: what that writes depends on where the tokenizer was loaded from.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.save_tokenizer(folder)
        write_json(folder / CONFIG, {**self.settings(), "resolution": to_dict(self.resolution)})

    def save_tokenizer(self, folder: Path) -> None:
        """tokenizer.json and tokenizer_config.json alone."""
        (folder / TOKENIZER).write_text(self._text.to_str(pretty=True) + "\n", encoding="utf-8")
        special = {"eos_token": self.tokenizer.eos_token, "pad_token": self.tokenizer.pad_token}
        extra = [token for token in self.tokenizer.all_special_tokens if token not in special.values()]
        write_json(folder / TOKENIZER_CONFIG, {"tokenizer_class": "PreTrainedTokenizerFast", **TOKENIZER_SETTINGS, **special, "extra_special_tokens": extra})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Processor":
        """Reads what `save_pretrained` wrote. Raises ModelError that names the file."""
        folder = Path(folder)
        settings, special = read_json(folder / CONFIG), read_json(folder / TOKENIZER_CONFIG)
        special.pop("tokenizer_class", None)
        try:
            backend = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises nothing more special
            raise ModelError(f"{folder / TOKENIZER}: cannot be read: {error}") from error
        try:
            settings["resolution"] = from_dict(settings["resolution"])
            return cls(PreTrainedTokenizerFast(tokenizer_object=backend, **special), **settings)
        except (TypeError, KeyError) as error:
            raise ModelError(f"{folder / CONFIG}: has other keys than a processor needs: {error}") from error
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from error

    def _encode(self, pieces: list[Piece], image_tokens: Sequence[int]) -> Encoded:
        ids: list[int] = []
        labels: list[int] = []
        counts = iter(image_tokens)
        for kind, text, learned in pieces:
            if kind == "token":
                new = [self._special[text]]
            elif kind == "image":
                new = [self.image_token_id] * next(counts)
            else:
                new = self.text_ids(text)
            ids += new
            labels += new if learned else [IGNORED] * len(new)
        labels[0] = IGNORED
        return Encoded(ids, labels)


def _check_pictures(messages: Messages, image_tokens: Sequence[int]) -> None:
    places = num_images(messages)
    if places != len(image_tokens):
        raise ModelError(f"the messages have {places} places for pictures and {len(image_tokens)} pictures are given: they must be as many.")
