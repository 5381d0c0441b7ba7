"""A byte-level BPE tokenizer trained on the corpus, made like Qwen2's: same normalisation, same splitting, same special tokens."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .errors import ModelError

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VISION_PAD = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)
"""In Qwen2-VL's order."""

ROLE_LINES = ("user\n", "assistant\n")
SMALLEST_VOCAB = 256 + len(SPECIAL_TOKENS)
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen2's pre-tokenisation pattern (tokenizer.json of Qwen2.5)."""


def train_tokenizer(texts: Iterable[str], vocab: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab` tokens; the same texts give the same tokenizer, in whatever order they come.

    Every byte is a token, so every text can be encoded. The role lines of the chat template count once per text, so that they
    become tokens as they are in Qwen's own vocabulary. Raises ModelError when bytes and special tokens do not fit into `vocab`.
    """
    if vocab < SMALLEST_VOCAB:
        raise ModelError(f"a byte-level vocabulary needs at least {SMALLEST_VOCAB} tokens, not {vocab}: raise model.llm.vocab.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in (text, *ROLE_LINES)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=IM_END, pad_token=END_OF_TEXT, extra_special_tokens=list(SPECIAL_TOKENS[1:]), clean_up_tokenization_spaces=False
    )
