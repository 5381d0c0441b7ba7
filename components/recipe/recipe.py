"""The whole recipe: everything that changes the result, and nothing else."""

from typing import Any

from pydantic import Field, model_validator

from components.recipe.base import Name, Section
from components.recipe.curation import Curation, Perplexity, stage_of
from components.recipe.data import Source
from components.recipe.draw import Draw
from components.recipe.evaluation import Evaluate
from components.recipe.gate import Gate
from components.recipe.held_out import HeldOut
from components.recipe.mixture import Fixed
from components.recipe.model import Model
from components.recipe.soup import Soup
from components.recipe.training import Stage

RESERVED = {"draw", "ingest", "rewrite", "curate", "soup", "evaluate", "package", "promote", "weights"}
"""Step names that a training stage may not take."""


class Recipe(Section):
    """Raw data to registered model, in one flat file. Machines, paths of caches and precision are not in it: see runtime profiles."""

    name: Name = Field(description="the registered model is called stockpot-<name>")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything random")
    draw: Draw | None = Field(default=None, description="draw a corpus first; null: the sources name your own files")
    sources: dict[Name, Source] = Field(min_length=1, description="source name -> file")
    held_out: HeldOut = Field(default_factory=HeldOut)
    model: Model
    curation: Curation
    stages: dict[Name, Stage] = Field(min_length=1, description="training stages in order; the last one with objective lm is evaluated")
    soup: Soup
    evaluate: Evaluate
    gate: Gate = Field(default_factory=Gate)

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_stage_before(cls, data: Any) -> Any:
        """Fills in `init_from`, so that the compiled parameters of a stage say all that it depends on."""
        stages = data.get("stages") if isinstance(data, dict) else None
        if not isinstance(stages, dict) or not all(isinstance(s, dict) for s in stages.values()):
            return data
        names = list(stages)
        before = dict(zip(names[1:], names, strict=False))
        return {**data, "stages": {n: {**s, "init_from": s["init_from"] if "init_from" in s else before.get(n)} for n, s in stages.items()}}

    @model_validator(mode="after")
    def _references_exist(self) -> "Recipe":
        names = list(self.stages)
        for clash in sorted(RESERVED & set(names)):
            raise ValueError(f"stages.{clash}: this name belongs to a step of the pipeline; rename the stage")
        if "dropped" in self.sources:
            raise ValueError("sources.dropped: this name belongs to the folder of dropped rows; rename the source")
        if "soup" in self.stages[names[-1]].candidates:
            raise ValueError(f"stages.{names[-1]}.candidates.soup: this name belongs to the soup itself; rename the candidate")
        if self.stages[names[-1]].objective != "lm":
            raise ValueError("stages: the last stage must have objective lm: it is the one that is souped and evaluated")
        for i, (name, stage) in enumerate(self.stages.items()):
            self._check_stage(name, stage, names[:i], last=i == len(names) - 1)
        for f in self.curation.filters:
            stage = stage_of(f)
            published = stage == "weights" and self.model.weights is not None
            if stage is not None and not published and (stage not in self.stages or self.stages[stage].objective != "text"):
                role = "scorer" if isinstance(f, Perplexity) else "judge"
                raise ValueError(f"curation.filters: {f.kind}: {role} {stage!r} is not a stage with objective text")
            self._known_sources(f"curation.filters: {f.kind}", getattr(f, "sources", None) or [])
        mixture = self.curation.mixture
        self._known_sources("curation.mixture", [*mixture.repeats, *(mixture.shares if isinstance(mixture, Fixed) else mixture.sources or [])])
        self._check_files()
        return self

    def _check_files(self) -> None:
        selection = {"soup.selection": self.soup.selection}
        report = {f"evaluate.benchmarks.{n}.path": b.path for n, b in self.evaluate.benchmarks.items()}
        for share, files in (("selection", selection), ("report", report)):
            for key, path in files.items():
                if path is None and not getattr(self.held_out, share):
                    raise ValueError(f"{key}: null takes the rows of held_out.{share}, which is 0: name a file, or hold some percent of the rows out")
        for key, path in {**{f"sources.{n}.path": s.path for n, s in self.sources.items()}, **selection, **report}.items():
            if self.draw is None and path is not None and path.startswith("out/"):
                raise ValueError(f"{key}: {path} is drawn by the recipe, but the recipe has no draw section")

    def _check_stage(self, name: str, stage: Stage, earlier: list[str], last: bool) -> None:
        runs = {f"stages.{name}": stage, **{f"stages.{name}.candidates.{c}": stage.candidate(c) for c in stage.candidates}}
        for where, run in runs.items():
            if run.init_from is not None and run.init_from not in earlier:
                raise ValueError(f"{where}.init_from: {run.init_from!r} is not an earlier stage; earlier: {', '.join(earlier) or 'none'}")
            if run.objective != stage.objective or run.init_from != stage.init_from:
                raise ValueError(f"{where}: a candidate may not change objective or init_from: a soup needs a common start")
            if run.batch.max_tokens > self.model.context:
                raise ValueError(f"{where}.batch.max_tokens: {run.batch.max_tokens} is more than model.context {self.model.context}")
            self._known_sources(f"{where}.data.sources", run.data.sources)
        if stage.candidates and not last:
            raise ValueError(f"stages.{name}.candidates: only the last stage is souped")

    def _known_sources(self, where: str, names: list[str]) -> None:
        for n in names:
            if n not in self.sources:
                raise ValueError(f"{where}: unknown source {n!r}; known: {', '.join(self.sources)}")
