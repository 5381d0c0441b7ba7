"""The step `evaluate`: soup and candidates on every benchmark, by free generation; scores, per-question records, a plot, a report."""

import json
from pathlib import Path

from components.data.benchmark import Question, read, shuffle_images
from components.errors import DataError
from components.evaluation import curves, plots, records, report, scores
from components.evaluation.candidates import candidates, last_stage
from components.evaluation.forms import put
from components.evaluation.held_out import held_out_questions
from components.evaluation.judging import Record, judge
from components.evaluation.predict import predict
from components.recipe.evaluation import Evaluate
from components.step import Step

SELECTION = "out/soup/selection.json"


def run(step: Step) -> None:
    """Writes data/records.parquet, scores.json, scores.png and report.html. Models with equal weights and config are run once."""
    config = step.config("evaluate", Evaluate)
    benchmarks = load(step, config)
    counted = {name: b.weight for name, b in config.benchmarks.items() if b.overall}
    bounds = {name: {"min_pixels": b.min_pixels, "max_pixels": b.max_pixels, "max_tiles": b.max_tiles} for name, b in config.benchmarks.items()}
    models = {"soup": step.input("soup"), **candidates(step)}

    digests = {name: scores.model_digest(folder) for name, folder in models.items()}
    distinct = {digest: models[name] for name, digest in digests.items()}
    asked = {name: [put(q, config.benchmarks[name].form) for q in questions] for name, questions in benchmarks.items()}
    answers = predict(distinct, asked, config.max_new_tokens, config.batch, bounds)
    judged = {m: {b: _judge(questions, answers[digests[m], b], config, b) for b, questions in asked.items()} for m in models}

    results = {m: scores.model_scores(digests[m], judged[m], counted) for m in models}
    content = scores.document(results.pop("soup"), results, counted, config.ruleset)
    records.write(step.data / "records.parquet", ((m, b, judged[m][b]) for m in models for b in benchmarks))
    scores.write(step.side("scores.json"), content)
    plots.plot(content, step.side("scores.png"))
    report.write(
        step.side("report.html"),
        name=step.param("name"),
        scores=content,
        judged=judged["soup"],
        controls=[name for name, b in config.benchmarks.items() if b.shuffle_images],
        trained={name: curves.read(folder.parent) for name, folder in ({**(candidates(step) or last_stage(step)), **_learned(step)}).items()},
        selection=json.loads(step.file(SELECTION).read_text(encoding="utf-8")),
    )


def _judge(questions: list[Question], answers: list[str], config: Evaluate, name: str) -> list[Record]:
    benchmark = config.benchmarks[name]
    return judge(questions, answers, config.ruleset, benchmark.form, circular=benchmark.circular)


def _learned(step: Step) -> dict[str, Path]:
    """Name and model directory of the stages before the last one that left a learning curve: most of what a small set teaches is learned there."""
    earlier = [name for name, stage in list(step.param("stages").items())[:-1] if stage.get("objective") == "lm"]
    return {name: folder for name in earlier if (folder := Path("out", name, "data")).with_name("curve.csv").is_file()}


def load(step: Step, config: Evaluate) -> dict[str, list[Question]]:
    """The benchmarks' questions, checked by the rule set, before any model is loaded.

    Raises DataError that names the file when it is damaged, or when it has no rows and counts in the overall score.
    """
    benchmarks = {}
    for name, benchmark in config.benchmarks.items():
        questions = read(step.file(benchmark.path)) if benchmark.path else held_out_questions(step, "report")
        if benchmark.overall and not questions:
            raise DataError(f"{benchmark.path}: no rows, but evaluate.benchmarks.{name} counts in the overall score: add rows or set overall: false")
        judge(questions, [""] * len(questions), config.ruleset, benchmark.form)
        benchmarks[name] = shuffle_images(questions) if benchmark.shuffle_images else questions
    return benchmarks
