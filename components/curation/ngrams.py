"""Runs of words that tell one text from others: thirteen of them, as GPT-3 was cleaned with (arXiv:2005.14165, appendix C)."""

import hashlib
import re
from collections.abc import Iterator

from components.curation.words import IDEOGRAPH, words

IS_IDEOGRAPH = re.compile(f"[{IDEOGRAPH}]")
WORD, CHARACTER = 2, 1
"""What a word and an ideograph weigh: thirteen ideographs are a short question, not a sentence."""


def ngrams(text: str, length: int) -> Iterator[int]:
    """A digest of 64 bits for every shortest run of words that begins at a word of the text and weighs as much as `length` words."""
    found = words(text)
    weights = [CHARACTER if IS_IDEOGRAPH.match(word) else WORD for word in found]
    stop = weight = 0
    for start, mine in enumerate(weights):
        while weight < length * WORD and stop < len(found):
            weight += weights[stop]
            stop += 1
        if weight < length * WORD:
            return
        yield int.from_bytes(hashlib.blake2b(" ".join(found[start:stop]).encode(), digest_size=8).digest(), "big")
        weight -= mine
