"""How likely answers are under a vision-language model that sees the pictures: ours, packed, or any that `transformers` knows, in padded batches.

Perplexity as in POINTS1.5 (arXiv:2412.08443, equation 2), from log-probabilities in float32 (theirs went through bfloat16).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import BatchFeature

from components.curation.scorer import batches
from components.errors import DataError
from components.models.checkpoint import load_model
from components.models.config import VLMConfig
from components.models.errors import ModelError
from components.models.json_file import read_json
from components.models.processor import IGNORED
from components.models.varlen import NAME as VARLEN
from components.recipe.published import Published
from components.weights.published import open_published
from components.weights.sources import checked_digest, fetch

BATCH_TOKENS = 8192
"""Tokens of a batch, padding and those of pictures included, unless one sample alone has more."""
WINDOW = 128
"""Samples whose pictures are in memory at once."""
IM_END = "<|im_end|>"


class Shown(NamedTuple):
    """What the model sees: a question, its pictures, which come first, and the answer that is scored."""

    pictures: Sequence[Image.Image]
    question: str
    answer: str


class Prepared(NamedTuple):
    """A sample as the model takes it; `labels` are the scored ids, and -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]
    rest: dict[str, torch.Tensor]


class PictureScorer(ABC):
    """`source`: as the recipe names the model. `digest`: of its weights, hex. `context`: longest sequence that it is built for, tokens."""

    context: int

    def __init__(self, source: str, weights: str):
        self.source, self.digest = source, weights
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def perplexities(self, samples: Sequence[Shown], max_tokens: int = BATCH_TOKENS) -> list[float | None]:
        """exp of the mean negative natural log-probability of the answer's tokens and the one that ends it.

        None for a sample that is longer than the model's context or that the model cannot read. Raises DataError when the model gives no numbers.
        """
        found: list[float | None] = []
        for start in range(0, len(samples), WINDOW):
            window = samples[start : start + WINDOW]
            prepared = [(i, p) for i, sample in enumerate(window) if (p := self._prepare(sample)) and len(p.input_ids) <= self.context]
            known: dict[int, float] = {}
            for batch in self._batches([len(p.input_ids) for _, p in prepared], max_tokens):
                numbers, fitting = zip(*(prepared[i] for i in batch), strict=True)
                known.update(zip(numbers, self._perplexities(fitting), strict=True))
            found += [known.get(i) for i in range(len(window))]
        return found

    def _perplexities(self, samples: Sequence[Prepared]) -> Iterator[float]:
        for logs in self._log_probabilities(samples):
            mean = logs.double().mean().item()
            if math.isnan(mean):
                raise DataError(f"{self.source}: the scorer gives no numbers: use other weights")
            yield math.exp(min(-mean, 709.0))  # the largest exponent that float64 can hold

    @abstractmethod
    def _prepare(self, sample: Shown) -> Prepared | None:
        """The sample as ids; None when it cannot be read."""

    @abstractmethod
    def _batches(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        """Which samples go together."""

    @abstractmethod
    def _log_probabilities(self, samples: Sequence[Prepared]) -> list[torch.Tensor]:
        """Of each sample the log-probabilities, float32, of the tokens that are scored."""


class OwnScorer(PictureScorer):
    """A model folder of ours. Samples are packed: one sequence, no padding, each attended by itself."""

    def __init__(self, published: Published, cache: Path):
        """Raises DataError when the folder holds no whole model, or not the one that the recipe means."""
        folder = fetch(published.source, cache)
        super().__init__(published.source, checked_digest(published, folder, ("",)))
        try:
            model, self.processor = load_model(folder, dtype=torch.float32, attn_implementation=VARLEN)
        except ModelError as error:
            raise DataError(f"{published.source}: {error}") from error
        self.model: Any = model.to(self.device)  # pyright: ignore[reportArgumentType]
        self.context = model.config.llm.max_position_embeddings

    def _prepare(self, sample: Shown) -> Prepared | None:
        content = [*([None] * len(sample.pictures)), sample.question]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": sample.answer}]
        try:
            encoded = self.processor.encode(messages, [self.processor.num_image_tokens(*picture.size) for picture in sample.pictures])
            images = [self.processor.image(picture) for picture in sample.pictures]
        except ModelError:
            return None
        rest = {name: torch.cat([torch.from_numpy(image[i]) for image in images]) for i, name in enumerate(("pixel_values", "image_grid_thw")) if images}
        return Prepared(encoded.input_ids, encoded.labels, rest)

    def _batches(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        """By rising length, cut so that a packed row has at most `max_tokens` tokens."""
        found: list[list[int]] = []
        room = 0
        for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
            if lengths[i] > room:
                found.append([])
                room = max_tokens
            found[-1].append(i)
            room -= lengths[i]
        return found

    @torch.inference_mode()
    def _log_probabilities(self, samples: Sequence[Prepared]) -> list[torch.Tensor]:
        ids = torch.tensor([[token for s in samples for token in s.input_ids]], device=self.device)
        places = torch.cat([torch.arange(len(s.input_ids)) for s in samples])[None].to(self.device)
        labels = torch.tensor([label for s in samples for label in s.labels], device=self.device)
        scored = (labels != IGNORED).nonzero()[:, 0]
        rest = {name: torch.cat([s.rest[name] for s in samples if s.rest]).to(self.device) for name in next((s.rest for s in samples if s.rest), {})}
        logits = self.model(ids, places, logits_to_keep=scored - 1, **rest).logits[0]
        logs = torch.log_softmax(logits.float(), dim=-1).gather(1, labels[scored][:, None])[:, 0].cpu()
        return list(logs.split([sum(label != IGNORED for label in s.labels) for s in samples]))


class PublishedScorer(PictureScorer):
    """Any image-text-to-text model of `transformers`, in batches of like length, padded on the right."""

    def __init__(self, published: Published, cache: Path):
        """Raises what `open_published` raises."""
        model, self.processor, weights = open_published(published, cache)
        super().__init__(published.source, weights)
        self.model = model.float().to(self.device) if self.device.type == "cpu" else model.to(self.device)
        self.context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        vocabulary = self.processor.tokenizer.get_vocab()
        self._end: int = vocabulary.get(IM_END, self.processor.tokenizer.eos_token_id)
        self._prompt = lru_cache(maxsize=64)(self._written)

    def _written(self, pictures: int, question: str) -> str:
        """A question behind its pictures as the model's template writes it; most samples are asked the same."""
        content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def _prepare(self, sample: Shown) -> Prepared | None:
        prompted = self._prompt(len(sample.pictures), sample.question)
        begins = self.processor.tokenizer.bos_token
        try:
            inputs: BatchFeature = self.processor(
                text=[prompted],
                images=[list(sample.pictures)] if sample.pictures else None,
                add_special_tokens=not (begins and prompted.startswith(begins)),
                return_tensors="pt",
            )
        except (ValueError, IndexError, OSError):
            return None  # a picture of a shape that the model's own processor refuses
        # By itself, with special tokens read as plain text: an answer cannot forge the end of the turn.
        answer = self.processor.tokenizer(sample.answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        prompt = inputs.pop("input_ids")[0].tolist()
        inputs.pop("attention_mask", None)
        scored = [*answer, self._end]
        return Prepared([*prompt, *scored], [IGNORED] * len(prompt) + scored, dict(inputs))

    def _batches(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        return batches(lengths, max_tokens)

    def _log_probabilities(self, samples: Sequence[Prepared]) -> list[torch.Tensor]:
        groups: dict[tuple, list[int]] = {}
        for i, sample in enumerate(samples):
            groups.setdefault(_shapes(sample), []).append(i)
        found = {i: logs for group in groups.values() for i, logs in zip(group, self._forward([samples[i] for i in group]), strict=True)}
        return [found[i] for i in range(len(samples))]

    @torch.inference_mode()
    def _forward(self, samples: Sequence[Prepared]) -> list[torch.Tensor]:
        longest = max(len(s.input_ids) for s in samples)
        pad = self.processor.tokenizer.pad_token_id or 0
        ids = torch.tensor([s.input_ids + [pad] * (longest - len(s.input_ids)) for s in samples], device=self.device)
        mask = torch.tensor([[1] * len(s.input_ids) + [0] * (longest - len(s.input_ids)) for s in samples], device=self.device)
        labels = torch.tensor([s.labels + [IGNORED] * (longest - len(s.labels)) for s in samples], device=self.device)
        rest = {name: _joined(name, samples, longest).to(self.device) for name in samples[0].rest}
        scored = (labels != IGNORED).any(0).nonzero()[:, 0]  # places where some sample has an answer
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=scored - 1, **rest).logits
        labels = labels[:, scored]
        logs = torch.log_softmax(logits[labels != IGNORED].float(), dim=-1).gather(1, labels[labels != IGNORED][:, None])[:, 0].cpu()
        return list(logs.split((labels != IGNORED).sum(1).tolist()))


def _per_token(sample: Prepared, name: str) -> bool:
    """Whether an input has a value for each token of the prompt, such as token types."""
    return sample.rest[name].ndim == 2 and sample.rest[name].shape == (1, sum(label == IGNORED for label in sample.labels))


def _shapes(sample: Prepared) -> tuple:
    """Samples with equal ones can be joined."""
    return tuple((name, value.dtype, value.shape[1:] if not _per_token(sample, name) else None) for name, value in sorted(sample.rest.items()))


def _joined(name: str, samples: Sequence[Prepared], longest: int) -> torch.Tensor:
    if not _per_token(samples[0], name):
        return torch.cat([s.rest[name] for s in samples])
    whole = torch.zeros(len(samples), longest, dtype=samples[0].rest[name].dtype)
    for row, s in zip(whole, samples, strict=True):
        row[: s.rest[name].shape[1]] = s.rest[name][0]
    return whole


def weights_of(published: Published, cache: Path) -> str:
    """The digest of the weights that a recipe names, without loading them. Raises as `fetch`."""
    return checked_digest(published, fetch(published.source, cache), ("",))


def open_picture_scorer(published: Published, cache: Path) -> PictureScorer:
    """The model that a recipe names: ours, told by its config.json, or one of `transformers`. `cache`: folder for a model from a bucket.

    Raises DataError when there is no such model or it is not what the recipe says, TransientError when the other side does not answer.
    """
    folder = fetch(published.source, cache)
    try:
        ours = read_json(folder / "config.json").get("model_type") == VLMConfig.model_type
    except ModelError as error:
        raise DataError(f"{published.source}: {error}") from error
    return OwnScorer(published, cache) if ours else PublishedScorer(published, cache)
