"""The run on the terminal: a live table of steps while it goes on, and where to look next when it is over."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from components.chain import Chain
from flows.ending import show_end
from tasks.session import describe

MARKS = {"waiting": "[dim]·[/dim]", "running": "[cyan]▶[/cyan]", "ran": "[green]✔[/green]", "reused": "[blue]=[/blue]", "failed": "[red]✘[/red]"}


class Board:
    """Hears of every step. With `as_json` it is silent until the last line; on a pipe it prints a line when a step ends."""

    def __init__(self, chain: Chain, as_json: bool = False) -> None:
        self.chain, self.as_json = chain, as_json
        self.code: int | None = None
        self.err = Console(stderr=True)
        self.bars = Progress(TextColumn("{task.fields[mark]} {task.description:<18}"), BarColumn(24), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
                             console=self.err, disable=as_json or not self.err.is_terminal)  # fmt: skip
        self.rows = {name: self.bars.add_task(name, total=None, start=False, mark=MARKS["waiting"], note="") for name in [*chain.steps, "promote"]}
        self.started: set[str] = set()

    def report(self, stage: str, line: dict[str, Any]) -> None:
        """A running step says how far it is."""
        row = self.rows[stage]
        if stage not in self.started:
            self.started.add(stage)
            self.bars.start_task(row)
        self.bars.update(row, completed=line["done"], total=line["total"], mark=MARKS["running"], note=describe(line))

    def ended(self, stage: str, state: str, seconds: float) -> None:
        """A step ended: ran, reused or failed."""
        note = f"{seconds:.1f} s" if state == "ran" else state
        self.bars.update(self.rows[stage], total=1, completed=0 if state == "failed" else 1, mark=MARKS[state], note=note)
        self.bars.stop_task(self.rows[stage])
        if not self.err.is_terminal and not self.as_json:
            self.err.print(f"{stage}: {note}", highlight=False)

    def finish(self, report: Any) -> None:
        """The end: sentences for people, or the one JSON line."""
        self.bars.stop()
        self.code = report.code
        show_end(report.line, self.chain.shown, self.as_json)
        for warning in self.chain.warnings:
            self.err.print(warning, style="yellow", highlight=False, soft_wrap=True)
        if report.errors:
            self.err.print(report.sentence, style="red", highlight=False, soft_wrap=True)


_as_json = False
_last: Board | None = None


def configure(as_json: bool) -> None:
    """Called by the command line before the flow starts."""
    global _as_json  # noqa: PLW0603
    _as_json = as_json


def last_code() -> int | None:
    """Exit code of the run that this process has just shown; None when it did not come to its end."""
    return _last.code if _last else None


@contextlib.contextmanager
def current(chain: Chain) -> Iterator[Board]:
    """The board of a flow run in this process."""
    global _last  # noqa: PLW0603
    _last = board = Board(chain, _as_json)
    with board.bars:
        yield board
