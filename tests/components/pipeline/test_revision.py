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
    """Two commits: `corpus/` and `rows.json` in DVC, `small.json` in git; all differ between them."""
    root = tmp_path_factory.mktemp("committed") / "project"
    (root / "corpus/images").mkdir(parents=True)
    git(root, "init", "-q")
    dvc(root, "init", "-q")
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    for version in ("one", "two"):
        for file in ("corpus/rows.json", "corpus/images/a.png", "rows.json", "small.json"):
            (root / file).write_text(f"{file} {version}")
        dvc(root, "add", "-q", "corpus", "rows.json")
        git(root, "add", "-A")
        git(root, "commit", "-qm", version)
    (root / "scratch").mkdir()
    return root


@pytest.fixture
def project(committed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "project"))


PATHS = ["corpus", "corpus/rows.json", "corpus/images", "rows.json", "small.json"]


def test_every_path_is_as_it_was(project: Path) -> None:
    content = Content(project)
    now = {p: content.add(project / p) for p in PATHS}
    (project / "uncommitted").mkdir()
    assert content.at_revision("HEAD", PATHS, project / "uncommitted") == now
    then = content.at_revision("HEAD~1", PATHS, project / "scratch")
    for path, md5 in then.items():
        content.place(md5, project / "then" / path)
    assert (project / "then/small.json").read_text() == "small.json one"
    assert (project / "then/rows.json").read_text() == "rows.json one"
    assert (project / "then/corpus/rows.json").read_text() == "corpus/rows.json one"
    assert (project / "then/corpus/images/a.png").read_text() == "corpus/images/a.png one"
    assert (project / "rows.json").read_text() == "rows.json two"  # the checkout is not touched


def test_an_unknown_revision_and_a_path_that_it_lacks_are_named(project: Path) -> None:
    with pytest.raises(DataError, match="data revision nowhere: git knows no such revision"):
        Content(project).at_revision("nowhere", PATHS, project / "scratch")
    (project / "new.json").write_text("not committed")
    with pytest.raises(DataError, match=r"new\.json: not in revision HEAD"):
        Content(project).at_revision("HEAD", ["new.json"], project / "scratch")


@pytest.mark.parametrize("path", ["rows.json", "corpus", "corpus/images"])
def test_data_that_nobody_kept_is_an_error(project: Path, path: str) -> None:
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(DataError, match="in no cache"):
        Content(project).at_revision("HEAD~1", [path], project / "scratch")


def test_without_git_only_the_files_as_they_are_can_be_used(tmp_path: Path) -> None:
    dvc(tmp_path, "init", "-q", "--no-scm")
    with pytest.raises(SetupError, match="no git repository"):
        Content(tmp_path).at_revision("HEAD", ["rows.json"], tmp_path)
