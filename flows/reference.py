"""docs/reference/commands.md from the command line: every command, its arguments, options and defaults, in the words of `--help`.

Written anew by `python -m flows.reference > docs/reference/commands.md`; a test fails when the page is stale.
"""

import sys

from flows.cli import app

INTRO = """# Commands

Generated from `flows/cli.py`; do not edit. After a change there: `python -m flows.reference > docs/reference/commands.md`

`RECIPE` is the name of a file in `recipes/`, or a path. Where it may be left out, the recipe in force in this checkout is meant (`tiny` where there is none).
`--set key=value` overrides a key of the [recipe](recipe.md), the value in YAML; it may be repeated. `--json` makes the output one line of JSON;
that of `run` and `status` has [a page of its own](run-json.md).
`--debug` anywhere on the line shows the traceback of an error. `--help` works after every command.
"""

EXIT_CODES = """## Exit codes

| code | meaning |
|---|---|
| 0 | done; also when the gate refused the model |
| 2 | you must change something: one sentence names the file, row or key, and the remedy |
| 75 | try again later; `stockpot run` has tried already |
| 1 | a bug, with its traceback or the path of the log |
| 130 | stopped with Ctrl-C |

When several steps fail, `stockpot run` ends with the code of the first and prints a sentence for each.
"""


def markdown() -> str:
    """The whole page; the overview that comes first in the generated text is left to `stockpot --help`."""
    argv, sys.argv = sys.argv, ["stockpot"]  # cyclopts would write the program that runs now into every usage line
    try:
        commands = app.generate_docs()
    finally:
        sys.argv = argv
    return "\n".join([INTRO, commands[commands.index("## stockpot") :], EXIT_CODES])


if __name__ == "__main__":
    sys.stdout.write(markdown())
