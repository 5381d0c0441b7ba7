"""What a judge is asked, per language. Version 1; a changed wording is a new version, because verdicts depend on it."""

VERSION = "1"

GRAMMAR = {"en": "Is this text well written? {text}", "zh": "这段话通顺吗？{text}"}
"""Asked about one answer; `{text}` is the answer as it stands."""

YES, NO = {"en": "yes", "zh": "是"}, {"en": "no", "zh": "否"}
"""The two possible verdicts."""
