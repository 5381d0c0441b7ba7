"""Runs of words that tell one text from others: thirteen of them, as GPT-3 was cleaned with (arXiv:2005.14165, appendix C)."""

import re
from collections.abc import Iterator

from xxhash import xxh3_64_intdigest

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
        yield xxh3_64_intdigest(" ".join(found[start:stop]).encode())
        weight -= mine
