"""The pages' snippets run, page by page, in a project whose chain has run: what a reader types there works.

`sh` blocks share one shell session, `python` blocks are scripts, `yaml` and `json` must be valid, and a mapping in `yaml` is a part of a recipe. `text` and
`console` are only shown. A comment on the line before says more: `<!-- file: PATH -->` (the reader writes this file) or `<!-- not run: REASON -->`.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.recipe.loader import load
from components.runtime import load_runtime
from tests.conftest import BIN, ROOT, Ended, Project, common, once
from tests.fakes.cloud import IMAGE, NAMESPACE, Cloud, open_cloud
from tests.s3_server import S3Server

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(r"^(?:<!-- (file|not run): (.+?) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, CHECKED, SHOWN = {"sh", "python"}, {"yaml", "json"}, {"text", "console"}


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a page."""

    where: str
    language: str
    body: str
    file: str | None
    runs: bool


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text(encoding="utf-8")
    found = []
    for m in FENCE.finditer(text):
        comment, said, language, body = m.groups()
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, m.start(3)) + 1}"
        found.append(Snippet(where, language, body, said if comment == "file" else None, language in RUN and comment is None))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert [s.where for s in snippets(page) if s.language not in RUN | CHECKED | SHOWN] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_and_json_are_what_the_project_reads(page: Path, tmp_path: Path) -> None:
    for snippet in snippets(page):
        if snippet.language == "json":
            json.loads(snippet.body)
        if snippet.language != "yaml":
            continue
        value: Any = YAML(typ="safe").load(snippet.body)
        if snippet.file and snippet.file.startswith("infra/profiles/"):
            (tmp_path / "profile.yaml").write_text(snippet.body, encoding="utf-8")
            load_runtime(str(tmp_path / "profile.yaml"))
        elif isinstance(value, dict):
            load(ROOT / "recipes/tiny.yaml", [f"{key}={json.dumps(part)}" for key, part in value.items()])


@pytest.fixture(scope="session")
def read_along(request: pytest.FixtureRequest, finished: tuple[Project, Ended]) -> Project:
    """A git clone in which `make demo` has run: the recipe called tiny is the micro one here, so that its commands take seconds."""
    folder = common(request.config) / "read-along"
    project = Project(folder / "project", finished[0].environment)

    def make() -> dict[str, Any]:
        finished[0].copy(project.root)
        (project.root / "recipes/micro.yaml").unlink()
        recipe = (ROOT / "tests/recipes/micro.yaml").read_text(encoding="utf-8").replace("name: micro", "name: tiny")
        (project.root / "recipes/tiny.yaml").write_text(recipe, encoding="utf-8")
        for path in (".gitignore", ".dvc/.gitignore", ".dvc/config"):
            shutil.copy(ROOT / path, project.root / path)
        git(project, "init", "-q")
        ended = project.stockpot("run", "tiny", "--use", "--json")
        assert ended.code == 0, ended.err
        assert {n for n, s in ended.states.items() if s == "ran"} == {"evaluate", "package", "promote"}  # the name is on report and card
        git(project, "add", ".")
        git(project, "commit", "-qm", "Start")
        return {}

    once(folder, make)
    return project


@pytest.fixture
def cloud(tmp_path: Path, s3_server: S3Server) -> Iterator[Cloud]:
    """For pages about clusters."""
    with open_cloud(tmp_path / "cloud", s3_server) as running:
        yield running


def git(project: Project, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=project.root, env=project.env(**git_author()), check=True)


def git_author() -> dict[str, str]:
    return {f"GIT_{who}_{what}": "reader@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(s.runs for s in snippets(p))], ids=name_of)
def test_what_a_page_says_works(page: Path, read_along: Project, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    project = read_along.copy(tmp_path / "project")
    home = tmp_path / "home"
    home.mkdir()
    env = project.env(HOME=str(home), PYTHONPATH=str(ROOT), **git_author())
    stand_ins = {"/mnt/team": str(tmp_path / "team")}
    if any("s3://" in s.body for s in snippets(page)):
        server: S3Server = request.getfixturevalue("s3_server")
        stand_ins |= {"http://127.0.0.1:7480": server.endpoint, "s3://bucket": f"s3://{server.new_bucket()}"}
        env |= {k: v for k, v in server.env().items() if k != "AWS_ENDPOINT_URL"}
    if any("kubectl" in s.body for s in snippets(page)):
        cloud: Cloud = request.getfixturevalue("cloud")
        stand_ins |= {re.findall(r"registry\.example\.org/\S+@sha256:\w{64}", page.read_text(encoding="utf-8"))[0]: IMAGE}
        cloud.cluster.store.delete(("secrets", NAMESPACE, "stockpot-store"))  # the reader makes it
        env["KUBECONFIG"] = cloud.env["KUBECONFIG"]
    shutil.copy(next((project.root / "out/draw/data/images").glob("*.png")), project.root / "picture.png")
    session = tmp_path / "session"
    session.write_text(f"cd {shlex.quote(str(project.root))}\n")
    for snippet in snippets(page):
        body = snippet.body
        for there, here in stand_ins.items():
            body = body.replace(there, here)
        if snippet.file:
            (project.root / snippet.file).parent.mkdir(parents=True, exist_ok=True)
            (project.root / snippet.file).write_text(body, encoding="utf-8")
        if not snippet.runs:
            continue
        if snippet.language == "python":
            command = [str(BIN / "python"), "-c", body]
        else:
            keep = f'{{ export -p; echo "cd $(printf %q "$PWD")"; }} > {shlex.quote(str(session))}'
            command = ["bash", "-euo", "pipefail", "-c", f". {shlex.quote(str(session))}\n{body}\n{keep}"]
        done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{snippet.where}:\n{body}\n{done.stdout}{done.stderr}"


def test_the_collector_sees_language_line_and_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("# P\n\n```sh\na\n```\n\n<!-- not run: slow -->\n```sh\nb\n```\n\n<!-- file: x/y.yaml -->\n```yaml\nc: 1\n```\n\n```\nd\n```\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert snippets(page) == [
        Snippet("page.md:3", "sh", "a\n", None, True),
        Snippet("page.md:8", "sh", "b\n", None, False),
        Snippet("page.md:13", "yaml", "c: 1\n", "x/y.yaml", False),
        Snippet("page.md:17", "", "d\n", None, False),
    ]
