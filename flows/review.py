"""`stockpot data review`: rows that wait for somebody's verdict, out as a sheet and back as a file that the recipe names."""

import json
import sys
from pathlib import Path

from components.curation.review_sheet import waiting, write_sheet
from components.curation.reviews import merge
from components.errors import SetupError
from flows.data import outputs


def export(recipe: str | None, to: Path, limit: int, as_json: bool) -> None:
    """Writes the sheet and says how many rows are on it. Raises SetupError before curation has run, or when no row waits."""
    with outputs(recipe) as root:
        curated = root / "out/curate/data"
        number = write_sheet(curated, to, limit)
        left = sum(1 for _ in waiting(curated)) - number
    if not number:
        to.unlink()
        raise SetupError("no row waits for a review: the recipe has no filter human_check, or all its rows have a verdict")
    line = {"page": str(to), "rows": number, "left": left}
    text = f"{to}: {number} rows to review, {left} left for the next sheet; open it, judge, save, then: stockpot data review import FILE --into reviews.jsonl"
    sys.stdout.write((json.dumps(line) if as_json else text) + "\n")


def take(saved: list[Path], into: Path, as_json: bool) -> None:
    """Adds saved verdicts to the file that the recipe names. Raises DataError that names file and row."""
    reviews = merge(saved, into)
    line = {"verdicts": str(into), **{kind: sum(r.verdict == kind for r in reviews.values()) for kind in ("accept", "fix", "reject")}}
    text = f"{into}: {line['accept']} accepted, {line['fix']} corrected, {line['reject']} rejected; the filter's key: verdicts: {into}"
    sys.stdout.write((json.dumps(line) if as_json else text) + "\n")
