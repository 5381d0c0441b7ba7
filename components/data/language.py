"""The language of a text, told by its script. Enough to report scores by language; it cannot tell English from French without an accent."""

import unicodedata
from collections import Counter
from functools import cache

SCRIPTS = {
    "CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "LATIN": "en", "CYRILLIC": "ru", "GREEK": "el", "ARABIC": "ar", "HEBREW": "he",
    "DEVANAGARI": "hi", "BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "THAI": "th", "GEORGIAN": "ka", "ARMENIAN": "hy", "KHMER": "km", "LAO": "lo",
}  # fmt: skip
"""First word of a letter's Unicode name -> the language that most often is written so."""

UNKNOWN = "und"
"""BCP 47's code for a language that nobody knows."""

WEIGHT = {"zh": 3, "ja": 3, "ko": 3}
"""A Chinese character says about as much as three Latin letters."""


@cache
def _language_of_letter(letter: str) -> str:
    language = SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0], UNKNOWN)
    return UNKNOWN if language == "en" and not letter.isascii() else language


def language_of(text: str) -> str:
    """BCP 47 code: `en` for plain Latin letters, `zh` for Chinese characters, `ja` when there is kana, ..., `und` for accented Latin and the rest.

    A text without letters counts as `en`, the default of every format that we read.
    """
    weights = Counter[str]()
    for letter, number in Counter(text).items():
        if letter.isalpha():
            language = _language_of_letter(letter)
            weights[language] += number * WEIGHT.get(language, 1)
    if weights["ja"]:
        weights["ja"] += weights.pop("zh", 0)  # Japanese has Chinese characters too
    if weights[UNKNOWN] * 20 >= weights["en"] > 0:
        weights[UNKNOWN] += weights.pop("en")  # a letter in twenty has an accent: Latin, but hardly English
    return max(weights, key=lambda code: (weights[code], code)) if weights.total() else "en"
