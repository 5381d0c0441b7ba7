"""Recipe -> params.yaml + dvc.yaml: plain DVC stages (no foreach, which cannot list dependencies that differ by recipe). Same recipe, same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.objects import fingerprint
from components.pipeline.closure import code_of
from components.pipeline.compiled_yaml import to_yaml
from components.recipe.annotator import model_folders
from components.recipe.curation import files_of, stage_of
from components.recipe.data import Source
from components.recipe.recipe import Recipe
from components.recipe.training import Stage
from components.step import rows_step

ENGINE = ("deepspeed", "numpy", "pillow", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")
"""Packages that compute. Their versions are part of every step's identity, without the local suffix: a CPU flow plans for GPU workers."""

DRAWN = "out/draw/data"


@dataclass(frozen=True)
class Compiled:
    """What DVC reads: `params` (the recipe in force and the engine) and `stages` (stage name -> entry of dvc.yaml, in topological order)."""

    params: dict[str, Any]
    stages: dict[str, dict[str, Any]]

    @property
    def params_text(self) -> str:
        """params.yaml."""
        return to_yaml(self.params)

    @property
    def dvc_text(self) -> str:
        """dvc.yaml."""
        return to_yaml({"stages": self.stages})

    def is_in(self, folder: Path) -> bool:
        """Whether `folder` holds exactly these two files: the recipe is in force there."""
        files = {folder / "params.yaml": self.params_text, folder / "dvc.yaml": self.dvc_text}
        return all(p.is_file() and p.read_text(encoding="utf-8") == text for p, text in files.items())

    def write(self, folder: Path) -> None:
        """Puts the recipe in force in `folder`; files that are right already are not touched."""
        for name, text in (("params.yaml", self.params_text), ("dvc.yaml", self.dvc_text)):
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.with_suffix(".new").write_text(text, encoding="utf-8")
                path.with_suffix(".new").replace(path)


def compile_recipe(recipe: Recipe) -> Compiled:
    """The recipe as DVC stages. A stage that joins a list also lists that list in its params: else an override that adds to it is not seen.

    What sources on S3 hold becomes a parameter, `objects`: their buckets are listed here. Raises StockpotError when that is not possible.
    """
    stages: dict[str, dict[str, Any]] = {}
    objects = {name: [fingerprint(uri) for uri in s.objects] for name, s in recipe.sources.items() if s.objects}
    if recipe.draw is not None:
        stages["draw"] = _stage("draw", [], ["seed", "draw"], outs=["noise.jsonl"])
    for name, source in recipe.sources.items():
        keys = [f"sources.{name}.{key}" for key in Source.model_fields if key != "rewrites"]
        keys += [f"objects.{name}"] if name in objects else []
        stages[f"ingest-{name}"] = _stage(f"ingest-{name}", [_file(recipe, p) for p in source.files], keys, metrics=["summary.json"])
        if source.rewrites:
            models = [_file(recipe, folder) for section in source.rewrites for folder in model_folders(section)]
            params = ["seed", f"sources.{name}.rewrites"]
            stages[f"rewrite-{name}"] = _stage(f"rewrite-{name}", [_out(f"ingest-{name}"), *models], params, metrics=["summary.json"])
    start = []
    if recipe.model.weights:
        folders = [_file(recipe, p.folder) for p in recipe.model.weights.parts.values() if p.folder]
        stages["weights"] = _stage("weights", folders, ["model", "seed"], metrics=["summary.json"])
        start = [_out("weights")]
    curve = recipe.held_out.selection > 0
    texts = {n: s for n, s in recipe.stages.items() if s.objective == "text"}
    for name, stage in texts.items():
        rewrites = [f"sources.{s}.rewrites" for s in stage.data.sources]
        stages |= _training(name, stage, [_rows(recipe, s) for s in stage.data.sources], start, curve, keys=rewrites)
    compared, keys = _decontamination(recipe)
    asked = [_out(stage) for stage in sorted({stage_of(f) or "" for f in recipe.curation.filters} - {""})]
    read = [_file(recipe, path) for f in recipe.curation.filters for path in (*model_folders(f), *files_of(f))]
    stages["curate"] = _stage(
        "curate",
        [*(_rows(recipe, s) for s in recipe.sources), *asked, *compared, *read],
        ["seed", "curation", "sources", *keys],
        outs=["card.html", "card.json"],
        metrics=["counts.json"],
    )
    for name, stage in recipe.stages.items():
        if name not in texts:
            stages |= _training(name, stage, [_out("curate")], start, curve)
    last = list(recipe.stages)[-1]
    finals = [f"{last}-{c}" for c in recipe.stages[last].candidates] or [last]
    learned = [n for n, s in recipe.stages.items() if curve and s.objective == "lm" and n != last]  # their learning curves are reported too
    models, records = [_out(f) for f in finals], [path for f in (*finals, *learned) for path in _paths(stages[f]["plots"])]
    benchmarks = [_questions(recipe, b.path) for b in recipe.evaluate.benchmarks.values()]
    stages["soup"] = _stage(
        "soup",
        [*models, _questions(recipe, recipe.soup.selection)],
        ["soup", "stages", "held_out", "evaluate.ruleset", "evaluate.max_new_tokens", "evaluate.batch"],
        metrics=["selection.json"],
    )
    stages["evaluate"] = _stage(
        "evaluate",
        [_out("soup"), "out/soup/selection.json", *models, *records, *benchmarks],
        ["name", "evaluate", "stages", "held_out"],
        outs=["report.html"],
        metrics=["scores.json"],
        plots=["scores.png"],
    )
    stages["package"] = _stage("package", [_out("soup"), "out/evaluate/scores.json"], ["name"])
    engine = {p: version(p).partition("+")[0] for p in ENGINE}
    return Compiled({**recipe.model_dump(mode="json"), **({"objects": objects} if objects else {}), "engine": engine}, stages)


def _decontamination(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Evaluation files that curation compares the rows with, and the keys that name them."""
    if recipe.curation.decontamination is None:
        return [], []
    named = {"soup.selection": recipe.soup.selection, **{f"evaluate.benchmarks.{n}.path": b.path for n, b in recipe.evaluate.benchmarks.items()}}
    there = {key: path for key, path in named.items() if path is not None}
    return [_file(recipe, path) for path in there.values()], list(there)


def _training(name: str, stage: Stage, inputs: list[str], start: list[str], curve: bool, *, keys: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """One DVC stage per candidate, or one for a stage without candidates.

    `start`: public weights, for a stage with none before it. `curve`: rows are held out, so there is a learning curve. `keys`: further parameters.
    """
    plots: list[Any] = [{"loss.csv": {"x": "step", "y": "loss"}}, *([{"curve.csv": {"x": "step", "y": "held_accuracy"}}] if curve else [])]
    deps = [*inputs, *([_out(stage.init_from)] if stage.init_from else start)]
    first = [] if stage.init_from else ["model"]
    if not stage.candidates:
        return {name: _stage(name, deps, ["seed", "held_out", *first, *keys, f"stages.{name}"], metrics=["summary.json"], plots=plots)}
    made = {}
    for candidate, override in stage.candidates.items():
        whole = {k for k, v in override.items() if not isinstance(v, dict)}
        own = [f"stages.{name}.{k}" for k in type(stage).model_fields if k != "candidates" and k not in whole]
        params = ["seed", "held_out", *first, *keys, *own, f"stages.{name}.candidates.{candidate}"]
        made[f"{name}-{candidate}"] = _stage(f"{name}-{candidate}", deps, params, metrics=["summary.json"], plots=plots)
    return made


def _stage(
    name: str,
    deps: list[str],
    params: list[str],
    *,
    outs: Sequence[str] = (),
    metrics: list[str] | None = None,
    plots: list[Any] | None = None,
) -> dict[str, Any]:
    """One entry of dvc.yaml; `outs`, `metrics` and `plots` are files beside the main output."""

    def beside(item: Any) -> Any:
        return f"out/{name}/{item}" if isinstance(item, str) else {f"out/{name}/{k}": v for k, v in item.items()}

    entry: dict[str, Any] = {
        "cmd": f"python -m components.steps {name}",
        "deps": sorted({*code_of(name), *deps}),
        "params": sorted(["engine", *params]),
        "outs": [_out(name), *map(beside, outs)],
    }
    if metrics:  # cached like any output: `cache: false` is never pushed
        entry["metrics"] = [beside(m) for m in metrics]
    if plots:
        entry["plots"] = [beside(p) for p in plots]
    return entry


def _paths(items: list[Any]) -> list[str]:
    return [i if isinstance(i, str) else next(iter(i)) for i in items]


def _out(name: str) -> str:
    return f"out/{name}/data"


def _rows(recipe: Recipe, source: str) -> str:
    """The rows of a source before curation."""
    return _out(rows_step(source, recipe.sources[source].rewrites))


def _questions(recipe: Recipe, path: str | None) -> str:
    """A file of questions, or the curated rows, some of which are held out as questions."""
    return _out("curate") if path is None else _file(recipe, path)


def _file(recipe: Recipe, path: str) -> str:
    """A file of the user's as it is; of the drawn corpus, the folder that is its DVC output."""
    return DRAWN if recipe.draw is not None and (path + "/").startswith(DRAWN + "/") else path
