"""Sources at an earlier git revision: tracked by DVC, by git, or inside a tracked folder; and every way in which they are not there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from components.errors import DataError, SetupError
from components.pipeline.content import Content
from tests.components.pipeline.toy import dvc


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits: `corpus/` and `rows.json` in DVC, `small/` in git; all differ between them."""
    root = tmp_path_factory.mktemp("committed") / "project"
    (root / "corpus/images").mkdir(parents=True)
    (root / "small/images").mkdir(parents=True)
    git(root, "init", "-q")
    dvc(root, "init", "-q")
    (root / ".dvcignore").write_text(".stockpot\n")
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    for version in ("one", "two"):
        for file in ("corpus/rows.json", "corpus/images/a.png", "rows.json", "small/rows.json", "small/images/b.png"):
            (root / file).write_text(f"{file} {version}")
        dvc(root, "add", "-q", "corpus", "rows.json")
        git(root, "add", "-A")
        git(root, "commit", "-qm", version)
    (root / ".stockpot").mkdir()
    return root


@pytest.fixture
def project(committed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "project"))


PATHS = ["corpus", "corpus/rows.json", "corpus/images", "rows.json", "small", "small/rows.json", "small/images"]


def test_every_path_is_as_it_was(project: Path) -> None:
    content = Content(project)
    now = {p: content.add(project / p) for p in PATHS}
    (project / ".stockpot/now").mkdir()
    assert content.at_revision("HEAD", PATHS, project / ".stockpot/now") == now
    then = content.at_revision("HEAD~1", PATHS, project / ".stockpot")
    for i, path in enumerate(PATHS):
        content.place(then[path], project / f"then-{i}" / Path(path).name)
    shown = {p.relative_to(project).as_posix(): p.read_text() for p in project.glob("then-*/**/*") if p.is_file()}
    assert shown == {
        "then-0/corpus/rows.json": "corpus/rows.json one",
        "then-0/corpus/images/a.png": "corpus/images/a.png one",
        "then-1/rows.json": "corpus/rows.json one",
        "then-2/images/a.png": "corpus/images/a.png one",
        "then-3/rows.json": "rows.json one",
        "then-4/small/rows.json": "small/rows.json one",
        "then-4/small/images/b.png": "small/images/b.png one",
        "then-5/rows.json": "small/rows.json one",
        "then-6/images/b.png": "small/images/b.png one",
    }
    assert (project / "rows.json").read_text() == "rows.json two"  # the checkout is not touched


def test_an_unknown_revision_and_a_path_that_it_lacks_are_named(project: Path) -> None:
    with pytest.raises(DataError, match="data revision nowhere: git knows no such revision"):
        Content(project).at_revision("nowhere", PATHS, project / ".stockpot")
    (project / "new.json").write_text("not committed")
    with pytest.raises(DataError, match=r"new\.json: not in revision HEAD"):
        Content(project).at_revision("HEAD", ["new.json"], project / ".stockpot")


@pytest.mark.parametrize("path", ["rows.json", "corpus", "corpus/images"])
def test_data_that_nobody_kept_is_an_error(project: Path, path: str) -> None:
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(DataError, match="in no cache"):
        Content(project).at_revision("HEAD~1", [path], project / ".stockpot")


def test_without_git_only_the_files_as_they_are_can_be_used(tmp_path: Path) -> None:
    dvc(tmp_path, "init", "-q", "--no-scm")
    with pytest.raises(SetupError, match="no git repository"):
        Content(tmp_path).at_revision("HEAD", ["rows.json"], tmp_path)
