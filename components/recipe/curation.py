"""`curation`: filters in the order in which they look at the rows. Each filter's config names it by `kind`."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.recipe.annotator import Annotator
from components.recipe.base import Name, Section
from components.recipe.data import Language
from components.recipe.mixture import Mixture, Proportional
from components.recipe.published import Published

Action = Literal["tag", "drop"]
"""What becomes of the rows that a filter finds: they stay and carry the verdict, or they are dropped."""


class Decontamination(Section):
    """Finds rows that give away the evaluation: the same pixels, nearly the same picture with the same question, or a long run of a question's words."""

    hash_bits: int = Field(default=12, ge=0, le=32, description="most bits of 64 in which the perceptual hashes of nearly the same pictures differ")
    picture_percent: float = Field(default=99, ge=0, le=100, description="smallest correlation of the thumbnails of nearly the same pictures, percent")
    words: int = Field(default=13, ge=5, description="shared run of words that gives a question away, words; two Chinese characters count as one")
    action: Action = Field(default="drop", description="what becomes of such a row")


class ImageValidity(Section):
    """Pictures that cannot be decoded whole, or are too large, go to quarantine."""

    kind: Literal["image_validity"] = "image_validity"
    max_pixels: int = Field(default=50_000_000, gt=0, description="larger pictures are refused before they are decoded, pixels")


Sources = Field(default=None, description="sources that are looked at; the others pass; null: all")


class ImageSize(Section):
    """Finds rows with a picture that is too small, too large, or too long and thin. Pictures that cannot be read pass."""

    kind: Literal["image_size"] = "image_size"
    sources: list[Name] | None = Sources
    min_side: int | None = Field(default=None, gt=0, description="shortest side that stays, pixels; null: any")
    max_side: int | None = Field(default=None, gt=0, description="longest side that stays, pixels; null: any")
    max_aspect: float | None = Field(default=None, ge=1, description="largest ratio of the longer side to the shorter one that stays; null: any")
    action: Action = Field(default="drop", description="what becomes of a row with such a picture")


class TextLength(Section):
    """Finds rows with an answer that is too short or too long."""

    kind: Literal["text_length"] = "text_length"
    sources: list[Name] | None = Sources
    unit: Literal["words", "characters"] = Field(default="words", description="what is counted; a Chinese character is a word")
    min: int | None = Field(default=None, gt=0, description="shortest answer that stays, in this unit; null: any")
    max: int | None = Field(default=None, gt=0, description="longest answer that stays, in this unit; null: any")
    action: Action = Field(default="drop", description="what becomes of a row with such an answer")


class IdentifiedLanguage(Section):
    """Finds rows whose answers are in another language than they should be: told by their script where it has one language, else by py3langid's model."""

    kind: Literal["language"] = "language"
    sources: list[Name] | None = Sources
    languages: list[Language] | None = Field(default=None, min_length=1, description="languages that stay, BCP 47; null: of each row its own `language`")
    min_percent: float = Field(
        default=5, gt=0, le=100, description="smallest probability of these languages, against the likeliest other one, with which a row stays, percent"
    )
    action: Action = Field(default="drop", description="what becomes of a row in another language")


class Blocklist(Section):
    """Finds rows whose messages have a word, the address of a host, or a pattern of a list. Each list stands in the recipe, in a file, or in both."""

    kind: Literal["blocklist"] = "blocklist"
    sources: list[Name] | None = Sources
    words: list[str] = Field(default=[], description="words and phrases, found as whole words; case, white space and punctuation do not count")
    words_file: str | None = Field(default=None, description="more of them, one a line")
    hosts: list[str] = Field(default=[], description="hosts of web addresses, such as `example.com`, with all below them; in messages and paths of pictures")
    hosts_file: str | None = Field(default=None, description="more of them, one a line")
    patterns: list[str] = Field(default=[], description="regular expressions (Python), searched in every message")
    action: Action = Field(default="drop", description="what becomes of such a row")

    @model_validator(mode="after")
    def _patterns_can_be_searched(self) -> "Blocklist":
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"patterns: {pattern!r} is no regular expression: {error}") from error
        return self


class ExactDuplicates(Section):
    """Rows whose messages and decoded pictures are equal to an earlier row's are dropped."""

    kind: Literal["exact_duplicates"] = "exact_duplicates"


class Perplexity(Section):
    """Keeps the rows that a model finds most likely (POINTS1.5, section 3: the lowest-perplexity 20 %)."""

    kind: Literal["perplexity"] = "perplexity"
    scorer: Name | Published = Field(
        default="llm",
        description="training stage whose language model scores the text alone; or a published vision-language model, ours or one that "
        "`transformers` knows, which sees the pictures too",
    )
    question: Literal["caption", "own"] = Field(
        default="caption", description="what a published model is asked: caption: one fixed request, in Chinese for Chinese rows; own: the row's own question"
    )
    sources: list[Name] = Field(description="sources that are ranked, each by itself and per language; the others pass")
    keep_percent: int = Field(default=20, ge=1, le=100, description="share of the scored rows that is kept, percent")


class NearDuplicates(Section):
    """Rows whose pictures look like an earlier row's and whose texts are nearly equal to its are dropped."""

    kind: Literal["near_duplicates"] = "near_duplicates"
    picture_percent: float = Field(default=99, ge=0, le=100, description="smallest correlation of the thumbnails of pictures that look alike, percent")
    text_percent: int = Field(default=80, ge=1, le=100, description="smallest Jaccard similarity of two texts that are nearly equal, percent")


Unjudged = Literal["keep", "drop"]
"""What becomes of rows without a verdict: either way with the reason `unjudged`."""


class TextAnswerable(Section):
    """Finds rows whose questions can be answered without the picture, by multiple choice (POINTS1.5, section 3; there such rows did no harm)."""

    kind: Literal["text_answerable"] = "text_answerable"
    judge: Name | Annotator = Field(default="llm", description="training stage whose language model answers, an endpoint, or a published model")
    sources: list[Name] = Field(description="sources that are judged; the others pass")
    options: int = Field(default=4, ge=2, le=26, description="options of a question: the right answer, and answers given elsewhere to equal questions")
    trials: int = Field(default=8, ge=1, description="times that a question is asked, each with other options in another order")
    right_percent: int = Field(default=80, ge=1, le=100, description="a question is answerable when this share of its trials is right, percent")
    action: Action = Field(default="tag", description="what becomes of a row all of whose questions are answerable")
    unjudged: Unjudged = Field(default="keep", description="what becomes of a row on which the judge gave no answer that can be used")


class Grammar(Section):
    """Finds rows with an answer that is not well written (POINTS1.5, section 3; there dropping them was better than mending them)."""

    kind: Literal["grammar"] = "grammar"
    judge: Name | Annotator = Field(default="llm", description="training stage whose language model judges, an endpoint, or a published model")
    sources: list[Name] = Field(description="sources that are judged; the others pass")
    min_words: int = Field(default=2, ge=1, description="shorter answers are not judged, words; a Chinese character counts as one")
    trials: int = Field(default=5, ge=1, description="times that a training stage is asked about an answer, the verdicts offered in changing order")
    wrong_percent: int = Field(default=60, ge=1, le=100, description="an answer is badly written when this share of its trials says so, percent")
    action: Literal["tag", "drop", "fix"] = Field(default="drop", description="what becomes of a row with a badly written answer; fix: the judge mends it")
    unjudged: Unjudged = Field(default="keep", description="what becomes of a row on which the judge gave no answer that can be used")
    max_tokens: int = Field(default=512, ge=16, description="longest reply of an endpoint or a published model, tokens")


class HumanCheck(Section):
    """Keeps the rows that somebody has accepted or corrected, and no others: what nobody has looked at is dropped as `unreviewed`."""

    kind: Literal["human_check"] = "human_check"
    sources: list[Name] = Field(description="sources whose rows need a review; the others pass")
    verdicts: str | None = Field(default=None, description="file that `stockpot data review import` writes, relative to the project; null: no review yet")


Filter = Annotated[
    ImageValidity
    | ImageSize
    | TextLength
    | IdentifiedLanguage
    | Blocklist
    | ExactDuplicates
    | NearDuplicates
    | Perplexity
    | TextAnswerable
    | Grammar
    | HumanCheck,
    Field(discriminator="kind"),
]


def stage_of(section: Filter) -> str | None:
    """The training stage whose language model a filter asks; None when it asks none, or an endpoint."""
    match section:
        case Perplexity():
            return section.scorer if isinstance(section.scorer, str) else None
        case TextAnswerable() | Grammar():
            return section.judge if isinstance(section.judge, str) else None
    return None


def files_of(section: Filter) -> list[str]:
    """The files that a filter reads besides the rows."""
    if isinstance(section, HumanCheck):
        return [section.verdicts] if section.verdicts else []
    return [path for path in (section.words_file, section.hosts_file) if path] if isinstance(section, Blocklist) else []


class Curation(Section):
    """Which rows reach the vision-language stages."""

    decontamination: Decontamination | None = Field(
        default=Decontamination(), description="before all filters, against the files of `evaluate.benchmarks` and `soup.selection`; null: off"
    )
    filters: list[Filter] = Field(description="applied in this order; a filter sees what the ones before it kept")
    mixture: Mixture = Field(default=Proportional(), description="after all filters: how many of the kept rows are taken of each source")
    max_quarantine_percent: int = Field(default=100, ge=0, le=100, description="a larger share of quarantined rows stops the run, percent; 100 = never")
    shard_rows: int = Field(default=4096, gt=0, description="largest number of rows in a Parquet shard, rows")
