"""How a question with options is put: POINTS1.5's own words (its wrapper in VLMEvalKit, vlm/points.py), in training and evaluation alike."""

import re
from collections.abc import Mapping

CHINESE = re.compile(r"[\u4e00-\u9fff]")
CHOOSE = ("Answer with the option's letter from the given choices directly.", "请直接回答选项字母。")
DIRECT = ("Answer the question directly.", "请直接回答问题。")


def choice(question: str, options: Mapping[str, str], hint: str = "") -> str:
    """Hint, question, a line for each option (letter -> text), and how to answer; in Chinese where the question is."""
    head = f"{hint}\n" if hint else ""
    lines = "".join(f"\n{letter}. {words}" for letter, words in options.items())
    return f"{head}{question}{lines}\n{(CHOOSE if options else DIRECT)[bool(CHINESE.search(question))]}"
