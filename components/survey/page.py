"""The text of a new recipe: complete, with a comment wherever something was assumed."""

import json

from components.recipe.model import Model
from components.survey.formats import BY_PATH
from components.survey.look import Files, Questions
from components.survey.size import SAMPLES, Sizes

CANDIDATES = {"a": 0.8, "b": 1.0, "c": 1.2}
"""Soup candidate -> its length over the stage's."""


def page(name: str, files: Files, sizes: Sizes, model: Model) -> str:
    """The whole YAML file."""
    made = [_head(name, files), _sources(files), _held_out(sizes, files.questions), _model(sizes, model), CURATION]
    made += [_stages(files, sizes), _end(name, files.questions, sizes)]
    return "\n".join(made)


def _head(name: str, files: Files) -> str:
    train, captions = files.train, files.captions
    answers = f"{train.classes} different answers" if train.classes else "free answers"
    return f"""# {train.rows} rows of questions{f" and {captions.rows} captions" if captions else ""}; {answers}.
# Written by `stockpot recipe new`; it is yours to change. Every key: docs/reference/recipe.md. After a change: stockpot recipe check {name}
name: {name}
seed: 0
"""


def _sources(files: Files) -> str:
    lines = ["sources:"]
    for source, rows, category in (("captions", files.captions, "caption"), ("train", files.train, "qa")):
        if rows is not None:
            lines.append(f"  {source}:")
            if rows.format != "llava":
                lines.append(f"    format: {rows.format}")
            lines.append(f"    path: {_text(rows.path.as_posix())}")
            if rows.format in BY_PATH:
                lines.append(f"    images: {_text(files.images.as_posix())}")
            lines.append(f"    category: {category}")
            lines.append(f"    language: {rows.language or 'null'}  # {_counts(rows.languages)}; for rows that do not name their own; null: told by the script")
    return "\n".join(lines) + "\n"


def _held_out(sizes: Sizes, questions: Questions | None) -> str:
    report = "" if questions else "\n  report: " + f"{sizes.report}  # asked at the end, because there is no file of questions"
    return f"""# Shares of the pictures that no stage trains on, percent; the hash of a picture decides, so more rows do not move those that are here.
held_out:
  selection: {sizes.selection}  # choose the soup's ingredients and draw the learning curves{report}
"""


def _model(sizes: Sizes, model: Model) -> str:
    vision, llm = model.vision, model.llm
    tokens = model.max_pixels // (vision.patch * model.connector.merge) ** 2
    return f"""model:  # from random weights, small enough for one CPU core
  vision: {{depth: {vision.depth}, width: {vision.width}, heads: {vision.heads}, patch: {vision.patch}, init_std: {vision.init_std}}}
  llm:
    hidden: {llm.hidden}
    layers: {llm.layers}
    heads: {llm.heads}
    kv_heads: {llm.kv_heads}
    ffn: {llm.ffn}
    vocab: {llm.vocab}  # at most; bytes, and the words of these files
    tie_embeddings: true
    init_std: {llm.init_std}
  min_pixels: {model.min_pixels}
  max_pixels: {model.max_pixels}  # larger pictures are made smaller: at most {tokens} tokens a picture. More shows more and takes longer
  context: {model.context}
"""


CURATION = """curation:
  filters:  # a small set is not ranked: what is left out is what cannot be read, and what is there twice
    - {kind: image_validity}
    - {kind: exact_duplicates}
"""


VARIED = "scale: 0.2, stretch: 0.25, rotate: 8, contrast: 0.3"
"""Of letters in unknown fonts 0.83 were right with these, 0.79 with a turn of 6 degrees and no stretch (seed 1 of benchmarks/own_data.py)."""


def _stages(files: Files, sizes: Sizes) -> str:
    augment = f"augment: {{copies: {sizes.copies}, {VARIED}}}"
    batch = f"batch: {{samples: {SAMPLES}, max_tokens: {sizes.max_tokens}}}"
    optimizer = "optimizer: {muon: 3e-3}"
    alone = (
        ", from the questions alone: beside the many words of captions, a few short answers are learned late" if files.captions and files.train.classes else ""
    )
    first = "captions, train" if files.captions and not files.train.classes else "train"
    describe = f"""  describe:  # to say what captions say: the tower is kept
    trainable: {{connector: {{}}, llm: {{}}}}
    lr: 1e-3
    data: {{sources: [captions, train], {augment}}}
    {batch}
    schedule: {{steps: {sizes.describe_steps}, warmup: 0.1}}
    {optimizer}
"""
    candidates = "\n".join(
        f"      {name}: {{data: {{subset_seed: {i}}}, schedule: {{steps: {round(sizes.instruct_steps * length)}}}}}"
        for i, (name, length) in enumerate(CANDIDATES.items(), 1)
    )
    return f"""stages:  # the longest row has {sizes.longest_row} tokens; copies are varied pictures, never mirrored: letters would not be themselves
  vision:  # to see: everything learns{alone}
    trainable: {{vision: {{}}, connector: {{}}, llm: {{}}}}
    lr: 1e-3
    data: {{sources: [{first}], {augment}}}
    {batch}
    schedule: {{steps: {sizes.vision_steps}, warmup: 0.1}}
    {optimizer}  # Muon learns to see in far fewer steps than AdamW alone
{describe if files.captions else ""}  instruct:  # to answer: the tower is kept
    trainable: {{connector: {{}}, llm: {{}}}}
    lr: 1e-3
    data: {{sources: [train], percent: 80, {augment}}}
    {batch}
    schedule: {{steps: {sizes.instruct_steps}, warmup: 0.1}}
    {optimizer}
    candidates:  # each sees its own share of the rows, for its own time; the soup is their average
{candidates}
"""


def _end(name: str, questions: Questions | None, sizes: Sizes) -> str:
    path = _text(questions.path.as_posix()) if questions else "null"
    return f"""soup: {{method: greedy}}  # by the rows of held_out.selection
evaluate:
  benchmarks:
    {name}: {{path: {path}}}
    shuffled: {{path: {path}, shuffle_images: true, overall: false}}  # control: with the wrong picture the model must fail
  max_new_tokens: {sizes.max_new_tokens}  # the longest answer has {sizes.longest_answer}
"""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items(), key=lambda item: (-item[1], item[0])))
