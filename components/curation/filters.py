"""All filters by the `kind` that a recipe names. A new filter is a section in `recipe/curation.py`, a class, and a line here."""

from typing import Any

from components.curation.blocklist import Blocklist
from components.curation.decontamination import Decontamination
from components.curation.evaluation_set import files
from components.curation.exact_duplicates import ExactDuplicates
from components.curation.filter import Filter
from components.curation.grammar import Grammar
from components.curation.human_check import HumanCheck
from components.curation.identified_language import IdentifiedLanguage
from components.curation.image_size import ImageSize
from components.curation.image_validity import ImageValidity
from components.curation.near_duplicates import NearDuplicates
from components.curation.perplexity import Perplexity
from components.curation.text_answerable import TextAnswerable
from components.curation.text_length import TextLength
from components.recipe.curation import Curation
from components.step import Step

FILTERS: dict[str, type[Filter[Any]]] = {
    f.kind: f
    for f in (
        ImageValidity,
        ImageSize,
        TextLength,
        IdentifiedLanguage,
        Blocklist,
        ExactDuplicates,
        NearDuplicates,
        Perplexity,
        TextAnswerable,
        Grammar,
        HumanCheck,
    )
}


def filters_of(config: Curation, step: Step) -> list[Filter[Any]]:
    """The filters of a recipe in their order, decontamination first where there are evaluation files."""
    first = [Decontamination(config.decontamination, step)] if config.decontamination and files(step.params) else []
    return [*first, *(FILTERS[section.kind](section, step) for section in config.filters)]
