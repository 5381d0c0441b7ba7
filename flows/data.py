"""`stockpot data card` and `data why`: what curation has left, in this checkout or in the cache."""

import contextlib
import json
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from components.chain import CARD, CARD_DATA, open_chain
from components.curation.why import fates
from components.errors import SetupError
from components.recipe.loader import find, in_force, load
from components.settings import Settings

NEEDED = ("draw", "ingest", "rewrite", "curate")
"""Kinds of steps whose outputs tell where a row came from and went."""


def card(recipe: str | None, open_it: bool, as_json: bool) -> None:
    """Prints where the data card is, with its figures; `open_it` shows it in a browser. Raises SetupError before there is one."""
    if recipe is None and Path(CARD).is_file():
        page, content = Path(CARD), json.loads(Path(CARD_DATA).read_text(encoding="utf-8"))
    else:
        page, content = _from_the_cache(recipe)
    if open_it:
        webbrowser.open(page.absolute().as_uri())
    if as_json:
        sys.stdout.write(json.dumps({"path": str(page), **content}) + "\n")
        return
    out = Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False)
    out.print(f"{page}: {content['rows_kept']} of {content['rows_in']} rows kept, {content['dropped']} dropped, {content['quarantined']} quarantined")
    for f in content["filters"]:
        out.print(f"  {f['kind']:<18} {f['seen']} seen, {f['dropped']} dropped, {f['quarantined']} quarantined, {f['tagged']} tagged, {f['fixed']} fixed")


def _from_the_cache(recipe: str | None) -> tuple[Path, dict[str, Any]]:
    """The card of a recipe that is not checked out, as a file beside the caches, and its data."""
    settings, name = Settings(), recipe or in_force()
    with open_chain(load(find(name)), settings) as chain:
        record = chain.done().get("curate")
        if record is None:
            raise SetupError(f"{name}: the step curate is not done yet: run `stockpot run {name}` first")
        page = Path(settings.home, "cards", f"{chain.recipe.name}.html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_bytes(chain.pipeline.content.read(record, CARD))
        return page, json.loads(chain.pipeline.content.read(record, CARD_DATA))


def why(sample: str, recipe: str | None, as_json: bool) -> None:
    """Prints the fate of a sample, from the source file to where it ended. Raises DataError for an id that nobody has, SetupError before curation has run."""
    with outputs(recipe) as root:
        found = fates(root, sample)
    if as_json:
        sys.stdout.write(json.dumps({"sample": sample, "fates": found}, ensure_ascii=False) + "\n")
        return
    out = Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False)
    for fate in found:
        for line in _told(fate):
            out.print(line)


@contextlib.contextmanager
def outputs(recipe: str | None) -> Iterator[Path]:
    """A folder with the outputs up to curation: this checkout, or a temporary one that is filled from the cache."""
    if recipe is None and Path("out/curate/counts.json").is_file():
        yield Path()
        return
    settings, name = Settings(), recipe or in_force()
    with open_chain(load(find(name)), settings) as chain, tempfile.TemporaryDirectory(dir=chain.pipeline.home) as folder:
        done = chain.done()
        if "curate" not in done:
            raise SetupError(f"{name}: the step curate is not done yet: run `stockpot run {name}` first")
        outs = [o for step, record in done.items() if step.partition("-")[0] in NEEDED for o in record["outs"]]
        chain.pipeline.content.pull([o["md5"] for o in outs])
        for o in outs:
            chain.pipeline.content.place(o["md5"], Path(folder, o["path"]))
        yield Path(folder)


def _told(fate: dict[str, Any]) -> Iterator[str]:
    """The fate in lines: the sample, one line a filter, the end."""
    about = ", ".join(fate[key] for key in ("language", "category") if fate[key])
    yield f"{fate['source']}/{fate['id']}" + (f" ({about})" if about else "")
    for message in fate["messages"] or []:
        yield f"  {message['role']}: {message['content']}"
    for verdict in fate["verdicts"]:
        score = "" if verdict["score"] is None else f" score {verdict['score']:.6g}"
        limit = "" if verdict["threshold"] is None else f", threshold {verdict['threshold']:.6g}"
        why = f": {verdict['reason']}" if verdict["reason"] else ""
        detail = f" ({verdict['detail']})" if verdict["detail"] else ""
        yield f"  {verdict['filter']} {verdict['version']}: {verdict['action']}{score}{limit}{why}{detail}"
        for message in verdict["before"] or []:
            yield f"    before: {message['role']}: {message['content']}"
    place = f"{fate['file']}, row {fate['row']}"
    if fate["end"] == "kept":
        yield f"  kept: {place}" + (f", {fate['times']} times" if fate["times"] > 1 else "")
    elif fate["end"] == "dropped":
        yield f"  dropped by {fate['verdicts'][-1]['filter']}: {place}"
    else:
        yield f"  quarantined: {fate['reason']}: {fate['detail']} ({place})"
