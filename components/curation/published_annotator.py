"""An annotator in this process: a published image-text-to-text model of the `transformers` library. Writes greedily."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from components.curation.answers import Answers
from components.curation.writing import Ask, Reply, WritingAnnotator
from components.recipe.published import Published
from components.weights.published import open_published

BATCH = 8
"""Replies that are written together."""


class PublishedAnnotator(WritingAnnotator):
    """Runs on the GPU where there is one. Replies are kept under the digest of the weights."""

    def __init__(self, published: Published, answers: Answers, cache: Path):
        """`cache`: folder for a model from a bucket. Raises what `open_published` raises."""
        model, self.processor, digest = open_published(published, cache)
        super().__init__(f"{published.source} {digest[:12]}", answers)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        limits = self.model.config.get_text_config()
        self.context: int = getattr(limits, "max_position_embeddings", 1 << 30)

    def _generate(self, asks: Mapping[str, Ask]) -> Iterator[tuple[str, Reply | None]]:
        """Batches of like length, so that little is padded. None for a question that is longer than the model's context."""
        order = sorted(asks, key=lambda key: (asks[key].max_tokens, len(asks[key].request.images), len(asks[key].request.text), key))
        for start in range(0, len(order), BATCH):
            keys = order[start : start + BATCH]
            for limit in sorted({asks[key].max_tokens for key in keys}):
                some = [key for key in keys if asks[key].max_tokens == limit]
                yield from zip(some, self._write([asks[key] for key in some], limit), strict=True)

    @torch.inference_mode()
    def _write(self, asks: list[Ask], max_tokens: int) -> list[Reply | None]:
        tokenizer = self.processor.tokenizer
        inputs = self.processor.apply_chat_template(
            [_conversation(ask) for ask in asks],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.device)
        length = inputs["input_ids"].shape[1]
        if length + max_tokens > self.context:
            return [None] if len(asks) == 1 else [reply for ask in asks for reply in self._write([ask], max_tokens)]
        new = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, eos_token_id=self._ends, pad_token_id=tokenizer.pad_token_id)[
            :, length:
        ]
        whole = [bool(set(self._ends) & set(row)) for row in new.tolist()]
        return [Reply(text, done) for text, done in zip(tokenizer.batch_decode(new, skip_special_tokens=True), whole, strict=True)]

    @property
    def _ends(self) -> list[int]:
        """Tokens that end a reply: the model's, and the tokenizer's."""
        ends = self.model.generation_config.eos_token_id
        return sorted({*(ends if isinstance(ends, list) else [ends]), self.processor.tokenizer.eos_token_id} - {None})


def _conversation(ask: Ask) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in ask.messages()]
    first = next(turn for turn in turns if turn["role"] == "user")
    pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in ask.request.images]
    first["content"] = [*({"type": "image", "image": picture} for picture in pictures), *first["content"]]
    return turns
