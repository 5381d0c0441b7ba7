"""A real image-text-to-text model of `transformers`, small and random, in a folder as the hub has them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

from components.models.tokenizer import IMAGE_PAD, VISION_END, VISION_START, train_tokenizer

CHAT = """{%- for message in messages -%}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' -%}
<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def qwen2_vl(folder: Path, texts: Sequence[str]) -> Path:
    """Writes a Qwen2-VL with a tokenizer of these texts; pictures of 8 x 8 pixels a token."""
    tokenizer = train_tokenizer(list(texts), 400)
    tokenizer.chat_template = CHAT
    ids = tokenizer.get_vocab()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    text = {"vocab_size": len(tokenizer), **sizes, "max_position_embeddings": 256, "rope_parameters": rope, "initializer_range": 0.3}
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 4, "mlp_ratio": 2}
    tokens = {"image_token_id": ids[IMAGE_PAD], "vision_start_token_id": ids[VISION_START], "vision_end_token_id": ids[VISION_END]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=1024).save_pretrained(folder)
    return folder
