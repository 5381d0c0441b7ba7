"""Why a row is refused: one code per reason, so that refused rows can be counted and found again."""

REASONS = {
    "broken_file": "the file, from this row on, cannot be read: damaged, cut off, or of another format",
    "broken_json": "a line of a JSONL file, or the JSON of a sample, is not valid",
    "broken_table": "a line of a table has more or fewer cells than its header",
    "wrong_type": "a field is missing or has another type than the format says",
    "bad_text": "a text cannot be written as UTF-8",
    "unknown_role": "a turn is by somebody else than a person, the model or the system",
    "turn_order": "the turns do not alternate, or do not begin with the person's",
    "no_answer": "there is no answer, or an answer is empty",
    "image_marks": "the number of <image> marks in the questions is not the number of pictures, or an answer has such a mark",
    "image_path": "the picture's path leads out of the source's folder of pictures",
    "image_missing": "the picture's file is not there",
    "image_base64": "the picture's text is not base64",
    "image_empty": "the picture's file is empty",
    "image_too_large": "the picture has more pixels, or its file more bytes, than allowed",
    "image_shape": "the picture is more than 200 times as long as wide",
    "image_unreadable": "the file is no picture in a known format",
    "image_truncated": "the picture begins well but cannot be decoded whole",
    "duplicate_id": "an earlier row of the source has the same id",
    "unjudged": "a rewrite got nothing from its annotator that can be used, and its section says `unjudged: quarantine`",
}
"""Code -> what it means."""


class RowError(ValueError):
    """One row cannot be used: `reason` is a key of REASONS, the message says what was found in this row."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class FileError(ValueError):
    """A file cannot be read, or not to its end. The message says why and what to do, without the file's name: whoever opened it knows that."""


def short(value: object) -> str:
    """A value as it is shown in a sentence: quoted, on one line, at most 80 characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
