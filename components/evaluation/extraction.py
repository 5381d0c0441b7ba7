"""Which option, or which of yes and no, a free answer means: VLMEvalKit's rules of two dates, by behaviour.

`vlmevalkit-2024-12` is that of commit 854caaca, when POINTS1.5 was measured, `vlmevalkit-2026-08` that of e8e78f05. No judge: where
VLMEvalKit would ask a language model, nothing is read (its `exact_matching`).
"""

import re
import string
from collections.abc import Mapping

MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
REFUSED = "Z"
STATED = re.compile(r"\b(?:correct )?answer is\s+([A-D])\b", re.IGNORECASE)
LAST = 4
"""2026-08: a letter counts only among so many words at the end."""


def option(answer: str, options: Mapping[str, str], ruleset: str) -> str:
    """The letter of the option that the answer means, Z for a refusal, empty when none can be read."""
    return _by_letter(answer, options, ruleset) or _by_text(answer, options, ruleset)


def _by_letter(answer: str, options: Mapping[str, str], ruleset: str) -> str:
    if any(refusal in answer for refusal in REFUSALS):
        return REFUSED
    words = answer.translate(MARKS).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1 and (ruleset == "vlmevalkit-2024-12" or found[0] in words[-LAST:]):
        return found[0]
    if not found and REFUSED in words:
        return REFUSED
    if ruleset != "vlmevalkit-2024-12" and (stated := STATED.search(answer.translate(MARKS))):
        return stated[1].upper() if stated[1].upper() in options else ""
    return ""


def _by_text(answer: str, options: Mapping[str, str], ruleset: str) -> str:
    if ruleset != "vlmevalkit-2024-12" and len(answer) > 2 * sum(map(len, options.values())):
        return ""
    found = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else ""


def yes_or_no(answer: str) -> str:
    """`Yes` or `No` when exactly one of the two is a word of the answer, else empty (HallusionBench)."""
    words = answer.lower().translate(str.maketrans(dict.fromkeys(string.punctuation, " "))).split()
    said = {"yes", "no"} & set(words)
    return said.pop().capitalize() if len(said) == 1 else ""


def holds(answer: str, wanted: str, *, formula: bool = False) -> bool:
    """Whether the wanted text is in the answer (OCRBench): lower case, line breaks as spaces; of a formula without spaces, and with its case."""
    if formula:
        return "".join(wanted.split()) in "".join(answer.split())
    return wanted.lower().strip().replace("\n", " ") in answer.lower().strip().replace("\n", " ")
