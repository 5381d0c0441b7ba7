"""The pages cannot lie: links lead somewhere, paths exist, commands, settings and fields are those of the code, examples run."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import components.recipe.curation
from components.curation.row import Row
from components.runtime import Cluster, Runtime
from components.settings import Settings
from flows.cli import app, recipes, rows
from flows.reference import markdown
from tests.conftest import Ended, Project

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    return [body for kind, body in FENCE.findall(text) if kind == language]


def code(text: str) -> str:
    """All fenced blocks and code spans of a page, one a line."""
    return "\n".join([body for _, body in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", FENCE.sub("", text)))


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def table(text: str) -> dict[str, list[str]]:
    """First column, without back-ticks -> the other columns."""
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip().strip("`") for cell in row[1:]] for row in rows}


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(page))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(read(file)), f"{name_of(page)}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    made_by_the_reader = {
        "components/curation/answer_length.py",
        "infra/profiles/team.yaml",
        "infra/profiles/workstation.yaml",
        "recipes/mine.yaml",
        "recipes/NAME.yaml",
    }
    for path in re.findall(
        r"(?<![\w/.])(?:flows|tasks|components|recipes|infra|tests|benchmarks|docs|\.ci|\.dvc)/[\w./-]*", code(read(page).split("\n## Tree\n")[0])
    ):
        clean = path.rstrip("./")
        if clean in made_by_the_reader or clean.startswith((".dvc/cache", ".dvc/tmp", ".dvc/config.local")):
            continue
        assert (ROOT / clean).exists(), f"{name_of(page)}: {path}"


def tree() -> list[str]:
    """Paths of the README's tree, folders with a slash."""
    paths, parents = [], {}
    for line in blocks(section(README, "Tree"))[0].splitlines():
        depth, path = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        parents[depth] = path
        paths.append("".join(parents[d] for d in range(depth)) + path)
    return paths


def test_every_path_of_the_tree_exists_and_has_a_description() -> None:
    for path in tree():
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    assert all(len(line.split(maxsplit=1)) == 2 for line in blocks(section(README, "Tree"))[0].splitlines())


def test_the_tree_is_complete() -> None:
    listed = set(tree())
    files = [p for folder in ("flows", "tasks", "components") for p in (ROOT / folder).glob("*.py") if p.name != "__init__.py"]
    rooms = [p.parent for p in (ROOT / "components").glob("*/__init__.py")]
    assert {p.relative_to(ROOT).as_posix() for p in files} <= listed
    assert {f"{p.relative_to(ROOT).as_posix()}/" for p in rooms} <= listed
    assert {f"recipes/{p.name}" for p in (ROOT / "recipes").glob("*.yaml")} <= listed
    assert {f"infra/profiles/{p.name}" for p in (ROOT / "infra/profiles").glob("*.yaml")} <= listed
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    top = {p.split("/")[0] for p in tracked if p not in (".gitignore", ".dvc/.gitignore", "README.md")}
    assert top <= {p.split("/")[0] for p in listed}


TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_readme_has_two_commands() -> None:
    assert blocks(section(README, "Two commands"))[0].split("\n") == ["make demo", "make test", ""]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_a_page_names_is_in_the_makefile(page: Path) -> None:
    assert set(re.findall(r"(?:^|\s)make ([a-z]+)", code(read(page)), re.MULTILINE)) <= TARGETS


def commands(of: Any) -> set[str]:
    return {name for name in of if not name.startswith("-")}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_stockpot_command_that_a_page_names_exists(page: Path) -> None:
    text = code(read(page))
    assert set(re.findall(r"\bstockpot ([a-z]+)", text)) <= commands(app)
    assert set(re.findall(r"\bstockpot recipe ([a-z]+)", text)) <= commands(recipes)


def test_all_commands_are_listed() -> None:
    assert {c.removeprefix("stockpot ") for c in table(section(README, "Two doors"))} == commands(app)
    page = read("docs/reference/commands.md")
    assert set(re.findall(r"^## stockpot (\w+)$", page, re.MULTILINE)) == commands(app)
    assert set(re.findall(r"^### stockpot recipe (\w+)$", page, re.MULTILINE)) == commands(recipes)
    assert set(re.findall(r"^### stockpot data (\w+)$", page, re.MULTILINE)) == commands(rows)


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    assert read("docs/reference/commands.md") == markdown(), "stale: run `python -m flows.reference > docs/reference/commands.md`"


def test_every_argument_and_option_has_a_meaning() -> None:
    rows = re.findall(r"^\* `([^`]+)`:(.*)$", read("docs/reference/commands.md"), re.MULTILINE)
    assert {"RECIPE", "--model STR", "--train PATH"} <= {name for name, _ in rows}
    assert [name for name, meaning in rows if not re.sub(r"\*+\[.*?\]\*+", "", meaning).strip()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_that_a_page_runs_is_there(page: Path) -> None:
    for module in re.findall(r"python -m ((?:components|flows|tests)\.[\w.]+)", code(read(page))):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_the_tables_of_profile_and_settings_are_those_of_the_code() -> None:
    page = read("docs/how-it-works.md")
    profile = table(section(page, "Runtime profile"))
    assert {k: v[0] for k, v in profile.items()} == {k: f"{f.default}".removesuffix(".0") for k, f in Runtime.model_fields.items()}
    settings = table(section(page, "Settings"))
    names = {str(f.validation_alias or f"STOCKPOT_{k.upper()}"): f.default for k, f in Settings.model_fields.items()}
    assert set(settings) == set(names)
    assert all(settings[name][0] == str(default) for name, default in names.items() if default is not None)


def test_the_keys_of_a_cluster_are_those_of_the_profile() -> None:
    keys = table(section(read("docs/how-to/cluster.md"), "All keys of `cluster`"))
    assert {k: v[1] for k, v in keys.items()} == {k: f.description for k, f in Cluster.model_fields.items()}
    shown = {k: str(f.default).removesuffix(".0").lower() for k, f in Cluster.model_fields.items() if keys[k][0] not in ("", "required")}
    assert {k: keys[k][0] for k in shown} == shown


def test_the_example_filter_works(monkeypatch: pytest.MonkeyPatch) -> None:
    config, body = blocks(read("docs/how-to/add-a-filter.md"), "python")
    for block in (config, body):
        ast.parse(block)
    assert max(len(line) for line in body.splitlines()) <= 160
    schema = vars(components.recipe.curation)
    made: dict[str, Any] = dict(schema)
    exec(config, made)
    monkeypatch.setitem(schema, "AnswerLength", made["AnswerLength"])
    room: dict[str, Any] = {"__name__": "answer_length"}
    exec(body, room)
    judging = room["AnswerLength"](made["AnswerLength"](min_characters=3), None)
    rows = [[{"role": "user", "content": "what is it ?"}, {"role": "assistant", "content": answer}] for answer in ("a cat", " no ", "yes")]
    blank = dict.fromkeys(Row.COLUMNS)
    facts = pa.array([judging.fact(Row({**blank, "messages": messages})) for messages in rows], type=judging.fact_type)
    shown = pa.table({"id": ["1", "2", "3"], "source": ["s"] * 3, "language": ["en"] * 3, "facts": facts})
    assert judging.judge(shown)["action"].to_pylist() == ["keep", "drop", "keep"]
    assert judging.judge(shown.slice(0, 0)).num_rows == 0


BY_NAME = {"candidates", "languages", "kinds", "benchmarks", "by_reason"}
"""Fields whose keys are the user's names."""


def fields(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if not isinstance(value, dict):
        return set()
    return set(value) | set().union(*(set().union(*map(fields, v.values())) if k in BY_NAME else fields(v) for k, v in value.items()))


@pytest.mark.slow
def test_the_fields_of_the_last_line_are_those_of_the_page(finished: tuple[Project, Ended]) -> None:
    page = read("docs/reference/run-json.md")
    assert fields(finished[1].line) == set(table(page))
    assert fields({"steps": [{"name": 1}], "by_reason": {"x": 1}}) == {"steps", "name", "by_reason"}  # the helper sees what it should


def test_the_number_of_steps_that_the_readme_shows_is_that_of_tiny() -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", "recipe", "check", "tiny"], cwd=ROOT, capture_output=True, text=True, check=False)
    num_stages = done.stdout.split("; ")[1].split()[0]
    assert f"tiny: {int(num_stages) + 1} steps ran, 0 reused, 0 failed" in README
