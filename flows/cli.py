"""The `stockpot` command. Each command imports what it needs when it is called, so that `stockpot --help` is quick."""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

app = App(name="stockpot", help="Raw image-text data in; a better, gated, traceable vision-language model out.", version="0.1.0")
recipes = App(name="recipe", help="Look at recipes, make one.")
app.command(recipes)
rows = App(name="data", help="Look at what curation did to the rows.")
app.command(rows)
reviews = App(name="review", help="Have somebody look at rows: a sheet out, verdicts back in.")
rows.command(reviews)

Recipe = Annotated[str, Parameter(help="a name in recipes/, or a file")]
RecipeInForce = Annotated[str | None, Parameter(help="a name in recipes/, or a file; default: the recipe in force in this checkout")]
Set = Annotated[list[str] | None, Parameter(name="--set", negative=(), help="override a recipe key: --set stages.instruct.lr=1e-5 (repeatable)")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="machine-readable output")]
DType = Annotated[Literal["bfloat16", "float16", "float32"] | None, Parameter(negative=())]

Profile = Annotated[str | None, Parameter(help="runtime profile: a name in infra/profiles/, or a file; default: STOCKPOT_PROFILE, else laptop")]

Questions = Annotated[
    Path | None, Parameter(name="--eval", help="questions to report on: VLMEvalKit-style TSV; default: some of the training pictures, held out")
]
Force = Annotated[bool, Parameter(name="--force", negative=(), help="write over a recipe of this name")]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _load(recipe: str | None, overrides: list[str] | None) -> Any:
    from components.recipe.loader import find, in_force, load

    return load(find(recipe or in_force()), overrides or [])


@app.command
def run(recipe: RecipeInForce = None, /, *, set_: Set = None, profile: Profile = None, use: bool = False, as_json: Json = False) -> int:
    """Run a recipe to the end: data, training, soup, scores, promotion. Finished steps are reused.

    With nothing to do it says so without a server. `--json` ends with one line and shows no table.

    Parameters
    ----------
    use
        Put the recipe in force in this checkout too (params.yaml, dvc.yaml, dvc.lock).
    """
    from flows.run import run as run_recipe

    return run_recipe(recipe, set_ or [], profile=profile, use=use, as_json=as_json, debug=bool(os.environ.get("STOCKPOT_DEBUG")))


@app.command
def use(recipe: Recipe, /, *, set_: Set = None) -> None:
    """Compile a recipe into params.yaml and dvc.yaml of this checkout, for `dvc repro`."""
    from components.pipeline.graph import compile_recipe

    compiled = compile_recipe(_load(recipe, set_))
    compiled.write(Path())
    _print(f"{recipe}: {len(compiled.stages)} stages in dvc.yaml; next: dvc repro, or stockpot run {recipe}")


@app.command
def status(recipe: RecipeInForce = None, /, *, set_: Set = None, as_json: Json = False) -> None:
    """Show which steps of a recipe are done, and what the registry holds.

    A row a step: `done` or `to do`, and the first ten digits of its identity. The identity of a step after an unfinished one is
    not known yet. Below it, the verdict on this model, when it stands and MLflow shows it. `--json` has the fields of
    `run --json`, with `steps` as `{name, state, identity}`.
    """
    from flows.status import status as show

    show(_load(recipe, set_), as_json)


@app.command
def predict(image: Path, question: str, /, *, model: str, as_json: Json = False) -> None:
    """Ask a registered model about a picture, from its package alone.

    `--json` gives `{model, image, question, answer}`.

    Parameters
    ----------
    image
        Path of a picture.
    question
        What the model was trained to answer, or something else.
    model
        Any MLflow model address, for example models:/stockpot-tiny@champion or the folder out/package/data.
    """
    from components.registry.predict import predict as ask
    from components.settings import Settings

    answer = ask(model, image, question, Settings())
    _print(json.dumps({"model": model, "image": str(image), "question": question, "answer": answer}) if as_json else answer)


@app.command
def promote(recipe: RecipeInForce = None, /, *, set_: Set = None, as_json: Json = False) -> None:
    """Let the gate decide about a finished recipe's model, now. Safe to repeat.

    All its steps must be done. A verdict that stands is shown again, and what MLflow shows otherwise than the log is put right.
    A refusal is no error. `--json` gives `{name, version, alias, promoted, reason, reused, package}`.
    """
    from flows.status import promote as decide

    decide(_load(recipe, set_), as_json)


@app.command
def rollback(recipe: RecipeInForce = None, /, *, as_json: Json = False) -> None:
    """Make the previous champion champion again.

    Exit code 2 when there is none. Not safe to repeat blindly: each call goes one champion back.
    """
    from flows.status import rollback as back

    back(_load(recipe, None), as_json)


@app.command
def convert(layout: Literal["A", "B", "stockpot"], source: str, target: Path, /, *, dtype: DType = None, as_json: Json = False) -> None:
    """Write a POINTS1.5 checkpoint in another layout, and test what was written.

    Parameters
    ----------
    layout
        A: as published (fused); B: Qwen2's names, which SGLang serves; stockpot: our own model folder.
    source
        A folder, s3://bucket/prefix, or a name on the hub (org/name or org/name@revision); its layout is seen from its tensors.
    target
        A new folder.
    dtype
        Cast every tensor; default: as stored.
    """
    import torch

    from components.settings import Settings
    from components.weights.convert import convert as write
    from components.weights.sources import fetch

    folder = fetch(source, Settings().home / "weights")
    figures = write(layout, folder, target, getattr(torch, dtype) if dtype else None)
    line = {"source": source, "target": str(target), **figures}
    about = f"{figures['tensors_bit_equal']} of {figures['tensors']} tensors lead back bit-equal, one layer differs by {figures['layer_difference']:.1g}"
    _print(json.dumps(line) if as_json else f"{target}: layout {figures['to']} of {source} (layout {figures['from']}), {figures['bytes']} bytes; {about}")


@app.command
def ui(*, stop: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Start Prefect, a worker and MLflow for this checkout, on loopback, with the schedule; they stay until `--stop`.

    What runs already is left alone. `make ui` and `make ui-stop` are the same.

    Parameters
    ----------
    stop
        End what was started, and all that it has started; running steps save what they have.
    """
    from components.settings import Settings
    from flows import ui as programs

    (programs.stop if stop else programs.start)(Settings())


@app.command
def doctor(*, profile: Profile = None, as_json: Json = False) -> int:
    """Check this machine: packages, disk, DVC project, remote, store, servers, GPU; and where the runtime profile runs units.

    One line each, with the remedy. Exit code 2 when one that is needed fails.
    """
    from flows.doctor import doctor as examine

    return examine(profile, as_json)


@app.command
def step(name: str, /) -> int:
    """Run the body of one step in the current directory, as `dvc repro` does.

    No workspace, no lookup, no record: for looking into a step.

    Parameters
    ----------
    name
        A stage of dvc.yaml.
    """
    from components.steps import main as run_step

    return run_step(name)


@recipes.command(name="list")
def recipe_list(*, as_json: Json = False) -> None:
    """List the recipes in recipes/ with their first comment line."""
    found = []
    for path in sorted(Path("recipes").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        found.append({"name": path.stem, "about": first.removeprefix("#").strip()})
    _print(json.dumps(found) if as_json else "\n".join(f"{r['name']:<12} {r['about']}" for r in found))


@recipes.command(name="show")
def recipe_show(recipe: Recipe, /, *, set_: Set = None, as_json: Json = False) -> None:
    """Print a recipe with every default filled in."""
    from components.pipeline.compiled_yaml import to_yaml

    data = _load(recipe, set_).model_dump(mode="json")
    _print(json.dumps(data) if as_json else to_yaml(data).split("\n", 1)[1].rstrip())


@recipes.command(name="check")
def recipe_check(
    recipe: Recipe,
    /,
    *,
    plan: Annotated[bool, Parameter(negative=())] = False,
    profile: str | None = None,
    gpus: int | None = None,
    zero: Literal[0, 1, 2, 3] | None = None,
    mfu: float = 0.4,
    tflops: float = 989.0,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Check a recipe without running anything, and name its stages.

    Parameters
    ----------
    plan
        Show for each training run: parameters, steps, tokens, memory per GPU, GPU-hours. The formulas are in `components/plan/cost.py`.
    profile
        Runtime profile of the plan: a name in infra/profiles/, or a file; default: the setting STOCKPOT_PROFILE.
    gpus
        GPUs of one run; default: the profile's processes.
    zero
        DeepSpeed ZeRO stage; default: the profile's.
    mfu
        Model FLOPs utilisation that GPU-hours are reckoned with.
    tflops
        Peak of one GPU; default: an H100 SXM in bf16.
    """
    from components.pipeline.graph import compile_recipe

    loaded = _load(recipe, set_)
    compiled = compile_recipe(loaded)
    line: dict[str, Any] = {"recipe": recipe, "stages": list(compiled.stages)}
    text = f"{recipe}: fine; {len(compiled.stages)} stages: {', '.join(compiled.stages)}"
    if plan:
        from flows.plan import plan_of

        line["plan"], table = plan_of(loaded, profile, gpus, zero, mfu=mfu, tflops=tflops)
        text = f"{text}\n\n{table}"
    _print(json.dumps(line) if as_json else text)


@recipes.command(name="new")
def recipe_new(
    name: str,
    /,
    *,
    train: Path,
    captions: Path | None = None,
    images: Path | None = None,
    questions: Questions = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a recipe for files of your own: look at them, size everything, say what was assumed.

    It becomes `recipes/NAME.yaml`. A name that exists is refused without `--force`.

    Parameters
    ----------
    name
        What the recipe is to be called: lower-case letters, digits and `_`, a letter first.
    train
        Questions and answers about pictures: JSON or JSONL, WebDataset tars, Parquet, or TSV; a file, or a folder of files in one format.
    captions
        Descriptions of pictures, in one of these formats; default: none, and one stage less.
    images
        Folder of the pictures that rows name by a path; default: where the training rows lie.
    """
    from components.survey.new import new_recipe

    sentences = new_recipe(name, train=train, captions=captions, images=images, questions=questions, force=force)
    _print(json.dumps({"recipe": name, "path": f"recipes/{name}.yaml", "found": sentences}) if as_json else "\n".join(sentences))


@reviews.command(name="export")
def review_export(recipe: Recipe | None = None, /, *, to: Path = Path("review.html"), limit: int = 200, as_json: Json = False) -> None:
    """Write rows that wait for a review into a sheet: one HTML file with pictures, texts, and inputs to accept, fix and reject.

    They are the rows that the filter `human_check` has dropped as `unreviewed`, in this checkout's `out/`, or of RECIPE from the cache. `--json` gives
    `{page, rows, left}`.

    Parameters
    ----------
    to
        The file to write.
    limit
        Most rows on it.
    """
    from flows.review import export

    export(recipe, to, limit, as_json)


@reviews.command(name="import")
def review_import(saved: list[Path], /, *, into: Path, as_json: Json = False) -> None:
    """Add the verdicts that a review sheet has saved to the file that the filter `human_check` reads.

    A later verdict on a row takes the place of an earlier one. `--json` gives `{verdicts, accept, fix, reject}`, the numbers in the whole file.

    Parameters
    ----------
    saved
        Files that review sheets have saved, JSON or CSV.
    into
        The file of verdicts, one line each, for `verdicts` of the filter; made where it is not there.
    """
    from flows.review import take

    take(saved, into, as_json)


@rows.command(name="card")
def data_card(recipe: Recipe | None = None, /, *, open_: Annotated[bool, Parameter(name="--open", negative=())] = False, as_json: Json = False) -> None:
    """Say where the data card of the last curation is, with its figures.

    Without RECIPE that of this checkout's `out/`, else that of a recipe whose curation is done, from the cache. `--json` gives `card.json` and `path`.

    Parameters
    ----------
    open_
        Show it in a browser.
    """
    from flows.data import card

    card(recipe, open_, as_json)


@rows.command(name="why")
def data_why(sample: str, recipe: Recipe | None = None, /, *, as_json: Json = False) -> None:
    """Tell the fate of one sample: ingest, every filter with score and threshold, what it said before, where it ended.

    `--json` gives `{sample, fates: [{id, source, end, file, row, times, reason, detail, language, category, messages, verdicts}]}`: one for each
    source that has this id; `end` is kept, dropped or quarantined.

    Parameters
    ----------
    sample
        An id; SOURCE/ID, where several sources have it; or FILE:ROW of a row in quarantine.
    """
    from flows.data import why

    why(sample, recipe, as_json)


def main() -> None:
    """Entry point. Users see one sentence and an exit code (2: change something, 75: try again later); `--debug` adds the traceback."""
    from components.errors import explain

    gc.set_threshold(50_000, 20, 20)  # with Python's own, 700, the garbage collector looks through Prefect and MLflow again and again
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    if len(arguments) < len(sys.argv) - 1:
        os.environ["STOCKPOT_DEBUG"] = "1"
    try:
        sys.exit(app(arguments, result_action="return_value") or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        known = explain(error)
        if os.environ.get("STOCKPOT_DEBUG") or known is None:
            raise
        sys.stderr.write(f"{known}\n")
        sys.exit(known.code)
    finally:
        gc.freeze()  # nor at the end


if __name__ == "__main__":
    main()
