"""What one training process does, alone or as one of several: rows and a start in, a model folder out."""

import csv
import json
import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from components.data.encode import Pictures, Sample, encode_all, read_rows, read_split, texts, without_images
from components.data.loader import Loader
from components.data.sampler import Order
from components.errors import DataError, PermanentError, RecipeError
from components.models.build import build_model, build_processor
from components.models.checkpoint import load_model, save_model
from components.models.errors import ModelError
from components.models.processor import Processor
from components.models.tokenizer import train_tokenizer
from components.models.vlm import VLMForConditionalGeneration
from components.profile import Profile
from components.recipe.held_out import HeldOut
from components.recipe.model import Model
from components.recipe.training import TrainingConfig, resolve
from components.step import Step
from components.training import engine as engines
from components.training.checkpoint import Checkpoints
from components.training.exam import Exam
from components.training.loop import Run, fit
from components.training.meter import History
from components.training.objective import OBJECTIVES
from components.training.optimizer import build_optimizer, freeze, set_rates
from components.training.schedule import num_steps
from components.training.stop import StopSignal

logger = logging.getLogger(__name__)

EXAM_ROWS = 256
"""Held-out rows that are asked at each point of the learning curve."""

NAMED = 20
"""Left-out rows that are named one by one."""


def stage_config(step: Step) -> TrainingConfig:
    """The configuration of a stage, or of a candidate: the stage's keys that it has, with the candidate's laid over."""
    base = dict(step.param(f"stages.{step.kind}"))
    candidates = base.pop("candidates", {})
    try:
        return resolve(base, candidates[step.item] if step.item else {})
    except KeyError as error:
        raise RecipeError(f"params.yaml: stages.{step.kind}.candidates.{step.item}: there is no such candidate; run `stockpot use RECIPE` again") from error
    except ValidationError as error:
        e = error.errors()[0]
        raise RecipeError(f"params.yaml: stages.{step.kind}.{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})") from error


@dataclass(frozen=True)
class Start:
    """Where a stage begins."""

    model: VLMForConditionalGeneration
    processor: Processor
    samples: list[Sample]
    held_out: list[Sample]
    """rows that this stage would train on if they were not held out; at most EXAM_ROWS"""
    left_out: list[str]
    """ids of rows that are longer than a packed sequence may be"""


def begin(step: Step, config: TrainingConfig, workers: int = 0) -> Start:
    """Reads the stage's rows and its start: the weights of `init_from`, public ones, or random ones with a tokenizer trained on these rows.

    `workers` processes encode the rows, or this one. Raises DataError for rows or a model folder that cannot be used.
    """
    text_only = config.objective == "text"
    folders = [step.rows(s) if text_only else step.input("curate") / s for s in config.data.sources]
    held_out = step.config("held_out", HeldOut)
    rows = read_rows(folders, config.data.percent, config.data.subset_seed, held_out)
    held = _some(read_split(folders, "selection", held_out)) if held_out.selection else []
    if text_only:
        rows, held = ([without_images(row) for row in part] for part in (rows, held))
    try:
        if folder := _start_folder(step, config):
            model, processor = load_model(folder)
        else:
            parts = step.config("model", Model)
            tokenizer = train_tokenizer(texts(rows), parts.llm.vocab)
            model, processor = build_model(parts, tokenizer, step.seed), build_processor(parts, tokenizer)
    except ModelError as error:
        raise DataError(str(error)) from error
    if config.objective == "contrastive":
        _check_pairs([*rows, *held])
    encoded = encode_all(rows, processor, config.data.template, workers)
    samples = [s for s in encoded if len(s) <= config.batch.max_tokens]
    left_out = [s.id for s in encoded if len(s) > config.batch.max_tokens]
    if left_out:
        names = ", ".join(left_out[:NAMED]) + (", ..." if len(left_out) > NAMED else "")
        logger.warning(
            "%s: left out %d of %d rows with more than batch.max_tokens = %d tokens: %s", step.name, len(left_out), len(encoded), config.batch.max_tokens, names
        )
    if not samples:
        raise DataError(f"{step.name}: all {len(encoded)} rows have more tokens than stages.{step.kind}.batch.max_tokens = {config.batch.max_tokens}: raise it")
    examined = [s for s in encode_all(held, processor, config.data.template) if len(s) <= config.batch.max_tokens]
    return Start(model, processor, samples, examined, left_out)


def _start_folder(step: Step, config: TrainingConfig) -> Path | None:
    """The model folder that the stage starts from: an earlier stage's, or that of the public weights. None: it starts at random."""
    if config.init_from:
        return step.input(config.init_from)
    return step.input("weights") if step.config("model", Model).weights else None


def _check_pairs(rows: list[dict[str, Any]]) -> None:
    """Raises DataError for a row without a picture."""
    for row in rows:
        if not row["images"]:
            raise DataError(f"{row['source']}: row {row['id']} has no picture: objective contrastive compares pictures with captions, leave this source out")


def _some(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most EXAM_ROWS of the rows, from all over the files: they may be sorted by answer."""
    order = Order(max(1, len(rows)), 0, "exam")
    return [rows[order[i]] for i in range(min(len(rows), EXAM_ROWS))]


def train(step: Step, profile: Profile) -> None:
    """The work of this rank; rank 0 writes the outputs. Raises StockpotError for what a user can mend or try again."""
    config = stage_config(step)
    engines.join(profile)
    start = begin(step, config, profile.loader_workers)
    freeze(start.model, config)
    learner = OBJECTIVES[config.objective].learner(start.model, config, step.seed)
    optimizer = build_optimizer(learner, config)
    set_rates(optimizer, 0)
    engine = engines.build_engine(learner, optimizer, config, profile)
    loader = build_loader(start.samples, Pictures(start.processor, augment=config.data.augment, seed=step.seed), step, config)
    total = num_steps(config.schedule, loader.units_per_epoch, loader.units_per_step)
    exam = Exam(build_loader(start.held_out, Pictures(start.processor), step, config).all() if start.held_out else [], total)
    place = os.environ.get("STOCKPOT_CKPT")
    layout = {"processes": engines.num_ranks(), "zero_stage": profile.zero_stage, "precision": profile.precision}
    run = Run(step.name, config, total, layout, Checkpoints(place) if place else None, profile.checkpoint_seconds, profile.loader_workers)
    with StopSignal() as stopped:
        history = fit(engine, loader, exam, run, stopped)
    trained = engines.trained_weights(engine)
    if engines.rank() == 0:
        write_model(step, config, start, trained)
        write_record(step, config, start, history, {**layout, "threads": profile.threads})


def build_loader(samples: list[Sample], pictures: Pictures, step: Step, config: TrainingConfig) -> Loader:
    """This rank's batches of these samples, in the stage's order."""
    return Loader(
        samples,
        Order(len(samples), step.seed, step.name),
        pictures,
        samples_per_step=config.batch.samples,
        packs_per_step=config.batch.packs,
        max_tokens=config.batch.max_tokens,
        pad_id=pictures.processor.pad_token_id,
        rank=engines.rank(),
        num_ranks=engines.num_ranks(),
        long_rows=engines.device().type != "cpu",
    )


def _frozen(step: Step, config: TrainingConfig, start: Start, trained: Collection[str]) -> dict[str, torch.Tensor]:
    """The weights that were not trained, from where they came: under bf16 or ZeRO 3 the engine's copy is rounded or in pieces."""
    if folder := _start_folder(step, config):
        model, _ = load_model(folder)
    else:
        model = build_model(step.config("model", Model), start.processor.tokenizer, step.seed)
    weights = model.state_dict()
    return {name: weights[name] for names in model.groups().values() for name in names if name not in trained}


def write_model(step: Step, config: TrainingConfig, start: Start, trained: dict[str, torch.Tensor]) -> None:
    """The model folder. Frozen weights are written as they were read, what is not of the model is left out.

    Raises PermanentError when a trained weight is not finite.
    """
    for name, weight in trained.items():
        if not weight.isfinite().all():
            raise PermanentError(f"{step.name}: {name} is not finite after training: lower the learning rate")
    known = {name for names in start.model.groups().values() for name in names}
    trained = {own: weight for name, weight in trained.items() if (own := name.removeprefix("model.")) in known}
    save_model(start.model.config, start.processor, step.data, {**_frozen(step, config, start, trained), **trained})


def write_record(step: Step, config: TrainingConfig, start: Start, history: History, runtime: dict[str, Any]) -> None:
    """loss.csv (every step), curve.csv (where rows are held out) and summary.json, without wall-clock values: they are hashed.

    `runtime` is what may change last bits.
    """
    with step.side("loss.csv").open("w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(["step", "loss", "lr"])
        rows.writerows([i, f"{loss:.9g}", f"{rate:.9g}"] for i, (loss, rate) in enumerate(zip(history.losses, history.rates, strict=True), 1))
    if step.param("held_out.selection"):
        with step.side("curve.csv").open("w", encoding="utf-8", newline="") as f:
            rows = csv.writer(f, lineterminator="\n")
            rows.writerow(["step", "samples", "held_loss", "held_accuracy"])
            rows.writerows([i, samples, f"{loss:.9g}", f"{accuracy:.9g}"] for i, samples, loss, accuracy in history.curve)
    summary = {
        "steps": len(history.losses),
        "samples": history.samples,
        "tokens": history.tokens,
        "first_loss": history.losses[0],
        "final_loss": history.losses[-1],
        "left_out": len(start.left_out),
        "left_out_rows": start.left_out[:NAMED],
        "runtime": runtime,
    }
    step.side("summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
