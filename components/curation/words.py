"""Words of a text in any script, for filters that count or compare them."""

import re
import unicodedata
from functools import lru_cache

IDEOGRAPH = "㐀-鿿豈-﫿"
"""CJK ideographs, which are written without spaces."""

WORD = re.compile(rf"[{IDEOGRAPH}]|[^\W{IDEOGRAPH}]+")


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case; an ideograph is a word of its own. Punctuation and the width of characters do not count."""
    return list(_words(text))


@lru_cache(maxsize=64)
def _words(text: str) -> tuple[str, ...]:
    """Several filters ask for the words of one row."""
    return tuple(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
