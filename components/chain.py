"""One run of a recipe, from plan to promotion, without a scheduler: what flows and the command line have in common."""

import contextlib
import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import RecipeError
from components.pipeline.compiled_yaml import to_yaml
from components.pipeline.execute import Done, Pipeline
from components.pipeline.graph import Compiled, compile_recipe
from components.pipeline.identity import Record
from components.pipeline.opening import open_pipeline
from components.pipeline.tail import Report
from components.recipe.recipe import Recipe
from components.registry.promote import Outcome, intact, promote, rollback
from components.runtime import Runtime, load_runtime
from components.settings import Settings
from components.storage import open_storage
from components.tracking.parent import Status, finish_parent, open_parent, page_of_run, watch_machine
from components.tracking.step_log import StepLog
from components.tracking.store import check_mlflow, default_uri

COUNTS, PACKAGE = "out/curate/counts.json", "out/package/data"
CARD, CARD_DATA = "out/curate/card.html", "out/curate/card.json"
SCORES, PLOT, REPORT = "out/evaluate/scores.json", "out/evaluate/scores.png", "out/evaluate/report.html"
EXPERIMENT = "stockpot"
CURVE_POINTS = 100
"""Most points of a step's curve in the parent run; the child run has what was reported, the step's CSV file all."""


class Chain:
    """A recipe, planned on this machine. Use `open_chain`."""

    def __init__(self, recipe: Recipe, compiled: Compiled, pipeline: Pipeline, settings: Settings, tracking_uri: str, *, revision: str | None) -> None:
        self.recipe, self.compiled, self.pipeline, self.settings, self.tracking_uri = recipe, compiled, pipeline, settings, tracking_uri
        self.revision = revision
        """git revision of the sources; None: the files as they are."""
        self.run_id: str | None = None
        """MLflow parent run; None while nothing has been started."""
        self.run_page = ""
        """Where MLflow shows it, below the server's address."""
        self.shown = False
        """Whether the checkout's dvc.lock and out/ show this run."""
        self._stop_watching: Callable[[], None] = lambda: None
        self.warnings: list[str] = []
        """What could not be logged to MLflow; the run went on."""

    @property
    def steps(self) -> dict[str, tuple[str, ...]]:
        """Step -> the steps whose outputs it reads, in topological order."""
        return {name: unit.after for name, unit in self.pipeline.plan.units.items()}

    def steps_to(self, last: str) -> list[str]:
        """Step `last` and all that it needs, in topological order; `promote` comes after all steps."""
        if last == "promote":
            return list(self.steps)
        needed = {last}
        for name in reversed(self.steps):
            if name in needed:
                needed |= set(self.steps[name])
        return [name for name in self.steps if name in needed]

    @property
    def run_name(self) -> str:
        """Recipe and data version: a digest of what the first steps read."""
        first = sorted(u.identity({}) for u in self.pipeline.plan.units.values() if not u.after)
        return f"{self.recipe.name}-{hashlib.sha256(''.join(first).encode()).hexdigest()[:8]}"

    def done(self) -> dict[str, Record]:
        """Records of the steps that are finished already."""
        return self.pipeline.plan.done(self.pipeline.content)

    def check(self) -> None:
        """Raises SetupError or TransientError, before any work, when MLflow or the store can not be used."""
        check_mlflow(self.tracking_uri)
        open_storage(self.settings.store).list(f"promotions/{self.recipe.name}/")

    def check_launcher(self, last: str = "promote") -> None:
        """Raises SetupError or TransientError when units up to `last` could not run where the runtime profile says."""
        done = self.done()
        self.pipeline.launcher.check([name for name in self.steps_to(last) if name not in done])

    def start(self) -> None:
        """Opens the MLflow parent run. Raises SetupError when MLflow does not answer: nothing has been done yet."""
        tags = {"stockpot.recipe": self.recipe.name} | ({"stockpot.data_revision": self.revision} if self.revision else {})
        self.run_id = open_parent(self.tracking_uri, EXPERIMENT, self.run_name, tags, self.recipe.model_dump(mode="json"))
        self.run_page = page_of_run(self.tracking_uri, self.run_id)
        self._stop_watching = watch_machine(self.tracking_uri, self.run_id)

    def step(self, name: str, upstream: dict[str, Record], on_report: Callable[[Report], None]) -> Done:
        """Finishes one step, now or earlier, and logs it as a child run if it is run now. Raises what `Pipeline.ensure` raises."""
        unit = self.pipeline.plan.units[name]
        log: StepLog | None = None

        def report(line: Report) -> None:
            nonlocal log
            log = log or self._open_log(name, upstream)
            log.report(line)
            on_report(line)

        try:
            done = self.pipeline.ensure(name, upstream, report)
        except BaseException as error:
            if log or self.run_id:
                self.warnings += (log or self._open_log(name, upstream)).finish("FAILED", reason=str(error))
            raise
        if not done.reused and self.run_id:
            with tempfile.TemporaryDirectory() as folder:
                files = [self._file(done.record, path, Path(folder)) for path in _small_outs(unit.entry)]
                self.warnings += (log or self._open_log(name, upstream)).finish("FINISHED", files, {"seconds": done.seconds})
        return done

    def _open_log(self, name: str, upstream: dict[str, Record]) -> StepLog:
        unit = self.pipeline.plan.units[name]
        assert self.run_id is not None
        params = unit.spec["params"]["params.yaml"]
        return StepLog(self.tracking_uri, self.run_id, name, unit.identity(upstream), params=params, inputs=unit.inputs(upstream))

    def _file(self, record: Record, path: str, folder: Path) -> Path:
        file = folder / Path(path).name
        file.write_bytes(self.pipeline.content.read(record, path))
        return file

    # -- the registry ----------------------------------------------------------------------------------------------------

    def verdict(self, records: Mapping[str, Record]) -> Outcome | None:
        """The verdict on this package if it was given and the registry shows it; None: `promote` has something to do."""
        with self._package(records) as folder:
            return intact(folder, self.recipe.name, self.recipe.gate, open_storage(self.settings.store), self.tracking_uri)

    def promote(self, records: Mapping[str, Record]) -> Outcome:
        """Registers the package and lets the gate decide. Safe to repeat, and safe when several do it at once."""
        scores = json.loads(self.pipeline.content.read(records["evaluate"], SCORES))
        lineage = {f"stockpot.{n}": _md5(records[n], f"out/{n}/data") for n in ("curate", "soup", "package")}
        with self._package(records) as folder:
            return promote(
                folder, scores, self.recipe.name, self.recipe.gate, open_storage(self.settings.store), self.tracking_uri, run_id=self.run_id, tags=lineage
            )

    def rollback(self) -> Outcome:
        """Makes the previous champion champion again."""
        return rollback(self.recipe.name, open_storage(self.settings.store), self.tracking_uri)

    @contextlib.contextmanager
    def _package(self, records: Mapping[str, Record]) -> Iterator[Path]:
        oid = _md5(records["package"], PACKAGE)
        with tempfile.TemporaryDirectory(dir=self.pipeline.home) as folder:
            self.pipeline.content.pull([oid])
            self.pipeline.content.place(oid, Path(folder, "package"))
            yield Path(folder, "package")

    # -- the end ---------------------------------------------------------------------------------------------------------

    def finish(self, records: dict[str, Record], status: Status, use: bool, description: str = "", steps: Sequence[Mapping[str, Any]] = ()) -> None:
        """Ends the MLflow parent run with the lock file, and shows the run in the checkout when the recipe is in force there (or `use`).

        `description`: Markdown for the run's page in MLflow; `steps`: a table there. A run of some steps only, and one over an earlier
        revision of the sources, is not shown.
        """
        self._stop_watching()
        root, whole = self.pipeline.content.root, len(records) == len(self.steps)
        if use:
            self.compiled.write(root)
        if status == "FINISHED" and whole and self.revision is None and self.compiled.is_in(root):
            self.pipeline.content.show(records)
            self.shown = True
        if not self.run_id:
            return
        texts = {"params.yaml": self.compiled.params_text, "dvc.yaml": self.compiled.dvc_text}
        texts["dvc.lock"] = to_yaml({"schema": "2.0", "stages": records})
        tables = {"steps.json": _table(steps)} if steps else {}
        metrics: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            files = [self._file(records["curate"], p, Path(folder)) for p in (CARD, CARD_DATA)] if "curate" in records else []
            if scores := self.scores(records):
                metrics = _metrics(scores)
                tables["scores_table.json"] = _table([{"model": n, **_flat(s)} for n, s in {"soup": scores["soup"], **scores["candidates"]}.items()])
                files += [self._file(records["evaluate"], p, Path(folder)) for p in (SCORES, PLOT, REPORT)]
            points = [{"done": 0, **metrics}, *self._curves(records)]
            self.warnings += finish_parent(
                self.tracking_uri, self.run_id, status, texts=texts, files=files, points=points, tables=tables, description=description
            )
        if status == "FINISHED" and whole:
            self.verdict(records)  # leaves a note of what MLflow shows, so that a run with nothing to do need not start MLflow

    def _curves(self, records: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
        """Points of `loss/instruct-a` and the like, from the steps' plots: of reused steps too, which have no child run here."""
        for name, record in records.items():
            for path, axes in ((p, a) for plot in self.compiled.stages[name].get("plots", []) if isinstance(plot, dict) for p, a in plot.items()):
                rows = list(csv.DictReader(self.pipeline.content.read(record, path).decode().splitlines()))
                for row in rows[:: -(-len(rows) // CURVE_POINTS) or 1]:
                    yield {"done": int(row[axes["x"]]), f"{axes['y']}/{name}": float(row[axes["y"]])}

    def data(self, records: Mapping[str, Record]) -> dict[str, Any] | None:
        """Row counts of curation, for the summary; None before it has run."""
        if "curate" not in records:
            return None
        counts = json.loads(self.pipeline.content.read(records["curate"], COUNTS))
        return {k: counts[k] for k in ("rows_in", "rows_kept", "quarantined", "by_reason")}

    def scores(self, records: Mapping[str, Record]) -> dict[str, Any] | None:
        """Scores of soup and candidates, for the summary; None before evaluation has run."""
        if "evaluate" not in records:
            return None
        scores = json.loads(self.pipeline.content.read(records["evaluate"], SCORES))
        return {"soup": _summary(scores), "candidates": {n: _summary(c) for n, c in scores["candidates"].items()}}

    def plot(self, records: Mapping[str, Record]) -> bytes | None:
        """The plot of the scores, PNG; None before evaluation has run."""
        return self.pipeline.content.read(records["evaluate"], PLOT) if "evaluate" in records else None


def _summary(scores: dict[str, Any]) -> dict[str, Any]:
    """Overall, languages and kinds (both over the counted benchmarks), and every benchmark's value besides, controls too."""
    return {
        "overall": scores["overall"],
        "languages": {name: part["value"] for name, part in scores["by"]["language"].items()},
        "kinds": {name: part["value"] for name, part in scores["by"]["kind"].items()},
        "benchmarks": {name: b["value"] for name, b in scores["benchmarks"].items()},
    }


def _flat(scores: dict[str, Any]) -> dict[str, float]:
    """`overall`, and `languages/en`, `kinds/color`, `benchmarks/shuffled`, ... : a set of scores as MLflow groups names."""
    parts = {f"{part}/{name}": value for part in ("languages", "kinds", "benchmarks") for name, value in scores[part].items() if value is not None}
    return {"overall": scores["overall"], **parts}


def _metrics(scores: dict[str, Any]) -> dict[str, float]:
    """The soup's scores and the candidates' overall ones."""
    return {**_flat(scores["soup"]), **{f"candidates/{name}": c["overall"] for name, c in scores["candidates"].items()}}


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows with equal keys as columns."""
    return {column: [row[column] for row in rows] for column in rows[0]}


def _md5(record: Record, path: str) -> str:
    return str(next(o["md5"] for o in record["outs"] if o["path"] == path))


def _small_outs(entry: dict[str, Any]) -> list[str]:
    items = [*entry.get("metrics", []), *entry.get("plots", [])]
    return [i if isinstance(i, str) else next(iter(i)) for i in items]


@contextlib.contextmanager
def open_chain(
    recipe: Recipe, settings: Settings, root: Path = Path(), profile: Runtime | None = None, *, revision: str | None = None, run: str = ""
) -> Iterator[Chain]:
    """Plans `recipe` over the project at `root`. Raises StockpotError for what a user can mend.

    `revision`: a git revision; the sources are taken from there, all else (benchmarks, recipe, code) as it is.
    `run`: names whoever waits for units in a cluster.
    """
    if revision and recipe.draw is not None:
        raise RecipeError(f"data revision {revision}: recipe {recipe.name} draws its own data, which has no revisions: leave the data revision empty")
    if revision and (there := [uri for s in recipe.sources.values() for uri in s.objects]):
        raise RecipeError(f"data revision {revision}: {there[0]} is on S3, which git knows nothing of: leave the data revision empty")
    sources = sorted({p for s in recipe.sources.values() for p in s.files})
    compiled = compile_recipe(recipe)
    home = root.absolute() / settings.home
    uri = settings.tracking_uri or default_uri(home)
    store = settings.store if "://" in settings.store else str(root.absolute() / settings.store)
    settings = settings.model_copy(update={"store": store})
    home.mkdir(parents=True, exist_ok=True)
    with open_pipeline(compiled, root, home, store, profile or load_runtime(settings.profile), revision=revision, revised=sources, run=run) as pipeline:
        yield Chain(recipe, compiled, pipeline, settings, uri, revision=revision)
