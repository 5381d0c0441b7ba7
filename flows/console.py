"""The run on the terminal: a live table of steps while it goes on, and where to look next when it is over."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from components.chain import Chain
from flows.ending import show_end
from tasks.session import describe

MARKS = {"waiting": "[dim]·[/dim]", "running": "[cyan]▶[/cyan]", "ran": "[green]✔[/green]", "reused": "[blue]=[/blue]", "failed": "[red]✘[/red]"}

WIDE = 100
"""Columns from which on bars are long."""


class Note(TextColumn):
    """What a step says last: the one column that gives way where the terminal is narrow, from its end."""

    def __init__(self) -> None:
        super().__init__("{task.fields[note]}", table_column=Column())

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class Table(Progress):
    """A row a step. Where the terminal is too low for all, the finished steps give way first, then the last of the waiting ones."""

    def get_renderables(self) -> Iterator[RenderableType]:
        surplus = len(self.tasks) - (self.console.height - 2) if self.tasks else 0
        rows = {state: [t for t in self.tasks if t.fields["mark"] == mark] for state, mark in MARKS.items()}
        dispensable = [*rows["reused"], *rows["ran"], *reversed(rows["waiting"])]
        hidden = {t.id for t in dispensable[: max(0, surplus)]}
        yield self.make_tasks_table([t for t in self.tasks if t.id not in hidden])
        if hidden:
            yield Text(f"  … and {len(hidden)} more, finished or waiting", style="dim")


class Board:
    """Hears of every step. With `as_json` it is silent until the last line; on a pipe it prints a line when a step ends."""

    def __init__(self, chain: Chain, as_json: bool = False) -> None:
        self.chain, self.as_json = chain, as_json
        self.code: int | None = None
        self.err = Console(stderr=True)
        bar = BarColumn(24 if self.err.width >= WIDE else 8)
        self.bars = Table(TextColumn("{task.fields[mark]} {task.description}"), bar, TimeElapsedColumn(table_column=Column(no_wrap=True)), Note(),
                          console=self.err, disable=as_json or not self.err.is_terminal)  # fmt: skip
        self.rows = {name: self.bars.add_task(name, total=None, start=False, mark=MARKS["waiting"], note="") for name in [*chain.steps, "promote"]}

    def started(self, stage: str) -> None:
        """A step begins, perhaps to find that it is done."""
        self.bars.start_task(self.rows[stage])
        self.bars.update(self.rows[stage], mark=MARKS["running"])

    def report(self, stage: str, line: dict[str, Any]) -> None:
        """A running step says how far it is."""
        self.bars.update(self.rows[stage], completed=line["done"], total=line["total"], note=describe(line))

    def ended(self, stage: str, state: str, seconds: float) -> None:
        """A step ended: ran, reused or failed."""
        note = f"{seconds:.1f} s" if state == "ran" else state
        self.bars.tasks[self.rows[stage]].finished_time = None  # it has been working on after its last report
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
