"""Answering questions about pictures: greedy decoding with a key-value cache, in left-padded batches."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import DynamicCache

from .errors import ModelError
from .processor import Processor
from .vlm import VLMForConditionalGeneration, positions


@torch.inference_mode()
def answer(
    model: VLMForConditionalGeneration, processor: Processor, images: Sequence[Image.Image | None], questions: Sequence[str], *, max_new_tokens: int, batch: int
) -> list[str]:
    """The model's answers, in the order of the questions.

    Each question is about its picture, or about none; the picture comes first. Batches are cut from the questions sorted by length, so
    the answers do not depend on the order of the input. An answer ends at `<|im_end|>` or after `max_new_tokens`. Deterministic.
    Raises ModelError when there are not as many pictures as questions, or a prompt and its answer pass the model's context.
    """
    if len(images) != len(questions):
        raise ModelError(f"{len(images)} pictures for {len(questions)} questions: give one, or None, for each.")
    prompts = [_prompt(processor, image, question) for image, question in zip(images, questions, strict=True)]
    context = model.config.llm.max_position_embeddings
    for number, prompt in enumerate(prompts):
        if len(prompt) + max_new_tokens > context:
            raise ModelError(f"question {number}: {len(prompt)} tokens and {max_new_tokens} new ones pass the context of {context}: shorten it.")
    was_training = model.training
    model.eval()
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number]), prompts[number], number))
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        generated = generate(model, processor, [prompts[n] for n in numbers], [images[n] for n in numbers], max_new_tokens)
        for number, ids in zip(numbers, generated, strict=True):
            answers[number] = processor.decode(ids).strip()
    model.train(was_training)
    return answers


def generate(
    model: VLMForConditionalGeneration, processor: Processor, prompts: Sequence[list[int]], images: Sequence[Image.Image | None], max_new_tokens: int
) -> list[list[int]]:
    """New ids of each prompt up to, not including, `<|im_end|>`; one left-padded batch. The model must be in evaluation mode."""
    device = model.llm.lm_head.weight.device
    longest = max(map(len, prompts))
    inputs = torch.tensor([[processor.pad_token_id] * (longest - len(ids)) + ids for ids in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    place = positions(mask)
    cache = DynamicCache(config=model.config.llm)
    extra = _pictures(processor, images, device, model.dtype)
    new: list[torch.Tensor] = []
    running = torch.ones(len(prompts), dtype=torch.bool, device=device)
    for _ in range(max_new_tokens):
        logits = model(inputs, place, mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra).logits
        inputs = logits[:, -1].argmax(-1, keepdim=True).masked_fill(~running[:, None], processor.stop_token_id)
        new.append(inputs)
        running &= inputs[:, 0] != processor.stop_token_id
        if not bool(running.any()):
            break
        place, mask, extra = place[:, -1:] + 1, torch.nn.functional.pad(mask, (0, 1), value=1), {}
    rows = torch.cat(new, 1).tolist() if new else [[] for _ in prompts]
    return [row[: row.index(processor.stop_token_id)] if processor.stop_token_id in row else row for row in rows]


def _prompt(processor: Processor, image: Image.Image | None, question: str) -> list[int]:
    """The picture first, then the question, in which nothing is read as a mark or a special token."""
    if image is None:
        return processor.prompt([{"role": "user", "content": [question]}], [])
    return processor.prompt([{"role": "user", "content": [None, question]}], [processor.num_image_tokens(*image.size)])


def _pictures(processor: Processor, images: Sequence[Image.Image | None], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Model inputs of the pictures that there are."""
    rows = [processor.image(image) for image in images if image is not None]
    if not rows:
        return {}
    pixels = torch.cat([torch.from_numpy(values) for values, _ in rows])
    return {"pixel_values": pixels.to(device, dtype), "image_grid_thw": torch.cat([torch.from_numpy(grids) for _, grids in rows]).to(device)}
