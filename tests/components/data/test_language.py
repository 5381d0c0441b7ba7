"""Telling the language of a text by its script."""

import pytest

from components.data.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("two red circles", "en"),
        ("两个红色的圆形", "zh"),
        ("What is written on this sign? 出口", "en"),
        ("iPhone 手机", "zh"),
        ("赤い丸が二つ", "ja"),
        ("빨간 원 두 개", "ko"),
        ("два красных круга", "ru"),
        ("deux cercles rouges à côté d'un carré", "und"),
        ("a naïve drawing of two circles that touch", "en"),
        ("", "en"),
        ("42 + 7 = ?", "en"),
        ("δύο κύκλοι", "el"),
        ("ᚠᚢᚦ", "und"),
    ],
)
def test_the_script_tells(text: str, language: str) -> None:
    assert language_of(text) == language
