"""The images: linted, and the steps of the one for CPUs run here as they stand, with the installed packages for those of the registry.

What differs from a build: the base image is this machine; packages are linked, not downloaded (the step is asked whether it would add any); no user is made.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.pipeline import bundle as bundles
from components.pipeline.execute import Pipeline
from components.pipeline.graph import compile_recipe
from components.pipeline.opening import open_pipeline
from components.pipeline.wire import end_of
from components.recipe.loader import load
from components.runtime import Cluster, Runtime
from tests.conftest import BIN, ROOT, make_project
from tests.infra.conftest import PACKAGES, uv_program
from tests.infra.dockerfile import Stage, instructions

IMAGES = sorted((ROOT / "infra/images").glob("*.Dockerfile"))


def name_of(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("dockerfile", IMAGES, ids=name_of)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    done = subprocess.run([str(BIN / "hadolint"), "--failure-threshold", "warning", str(dockerfile)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_a_step_that_is_not_reproducible(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && pip install torch\n")
    done = subprocess.run([str(BIN / "hadolint"), str(tmp_path / "Dockerfile")], capture_output=True, text=True, check=False)
    assert {"DL3006", "DL3013", "DL3003"} <= set(done.stdout.split())


@pytest.mark.parametrize("dockerfile", IMAGES, ids=name_of)
def test_an_image_is_built_in_stages_and_runs_as_the_user_of_the_pods(dockerfile: Path) -> None:
    steps = list(instructions(dockerfile))
    assert [w for w, _ in steps].count("FROM") == 3
    last = steps[max(i for i, (w, _) in enumerate(steps) if w == "FROM") :]
    user = Cluster.model_fields["user"].default
    assert ("USER", f"{user}:{user}") in last
    assert any(w == "RUN" and f"useradd --uid {user} " in rest for w, rest in last)
    assert ("WORKDIR", "/scratch") in last
    assert all(w != "RUN" or "useradd" in rest for w, rest in last)  # what is built is built before
    uses = [rest for w, rest in steps if w == "RUN" and "requirements.lock" in rest]
    assert "uv pip install --constraint requirements.lock --requirement pyproject.toml" in uses


def test_the_gpu_image_compiles_what_no_pod_can_compile() -> None:
    steps = [rest for w, rest in instructions(ROOT / "infra/images/gpu.Dockerfile") if w == "RUN"]
    assert any("DS_BUILD_" in s and "DS_ACCELERATOR=cuda" in s and "--no-binary deepspeed" in s and "--no-build-isolation" in s for s in steps)
    assert any("flash-attn==" in s and "--no-build-isolation" in s for s in steps)
    assert any("git_version_info_installed.py" in s for s in steps)  # and looks whether it was done


def inside(image: Stage, place: Path, *command: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command of the image with the image's environment alone, in an empty folder."""
    place.mkdir()
    env = {**image.env, "HOME": str(place.parent), **more}
    program = shutil.which(command[0], path=env["PATH"])
    assert program, command[0]
    return subprocess.run([program, *command[1:]], cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_the_step_that_installs_packages_asks_for_what_is_installed(tmp_path: Path) -> None:
    steps = [rest for w, rest in instructions(ROOT / "infra/images/cpu.Dockerfile") if w == "RUN" and "--requirement" in rest]
    command = [uv_program(), *steps[0].split()[1:], "--dry-run", "--offline", "--no-cache", "--python", str(PACKAGES.parents[2] / "bin/python")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Would make no changes" in done.stderr


def test_the_code_that_runs_is_the_images(image: Stage, tmp_path: Path) -> None:
    done = inside(image, tmp_path / "empty", "python", "-c", "import components, flows, tasks; print(components.__file__, flows.__file__, tasks.__file__)")
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(image.root / "opt/stockpot/lib")) for path in done.stdout.split())
    tracked = subprocess.run(["git", "ls-files", "flows", "tasks", "components"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packages = next((image.root / "opt/stockpot").glob("lib/python3*/site-packages"))
    assert [f for f in tracked if (packages / f).read_bytes() != (ROOT / f).read_bytes()] == []
    assert [f for f in tracked if f.endswith(".py") and not list((packages / f).parent.glob(f"__pycache__/{Path(f).stem}.*.pyc"))] == []


def test_commands_work_in_an_empty_folder_without_git(image: Stage, tmp_path: Path) -> None:
    assert shutil.which("git", path=image.env["PATH"]) is None
    done = inside(image, tmp_path / "one", "stockpot", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, "0.1.0"), done.stderr
    done = inside(image, tmp_path / "two", "python", "-m", "components.pipeline.unit")
    assert done.returncode == 1
    assert "usage: python -m components.pipeline.unit STORE/units/IDENTITY/unit.json" in done.stderr
    done = inside(image, tmp_path / "three", "prefect", "worker", "start", "--help")
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def planned(place: Path) -> Iterator[tuple[Pipeline, str]]:
    """A real pipeline whose store and remote are below `place`, and the address of its first unit there."""
    project, store, remote = make_project(place.parent / "project", {}).root, place / "store", place / "remote"
    (project / ".dvc/config").write_text(f"[core]\n    no_scm = true\n    remote = r\n['remote \"r\"']\n    url = {remote}\n")
    with open_pipeline(compile_recipe(load(project / "recipes/micro.yaml", [])), project, place.parent / "home", str(store), Runtime()) as pipeline:
        yield pipeline, bundles.put(str(store), pipeline.plan.units["draw"].bundle({}))


def test_a_unit_runs_from_its_bundle_in_an_empty_folder_without_git(image: Stage, tmp_path: Path) -> None:
    with planned(tmp_path / "place") as (pipeline, uri):
        done = inside(image, tmp_path / "scratch", "python", "-m", "components.pipeline.unit", uri, STOCKPOT_REMOTE=str(tmp_path / "place/remote"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert end_of(done.stdout) == {"code": 0, "error": "", "message": ""}
        assert pipeline.ensure("draw", {}, lambda _: None).reused


def test_a_unit_runs_as_the_pods_user_and_writes_nowhere_but_where_a_pod_may(image: Stage, tmp_path: Path) -> None:
    if os.geteuid() or subprocess.run(["unshare", "-m", "setpriv", "--dump"], capture_output=True, check=False).returncode:
        pytest.skip("a root that can not be written to is made by root, with mount namespaces")
    if Path(sys.prefix).is_relative_to("/tmp"):
        pytest.skip("the packages lie in /tmp, where a pod has a folder of its own: make the virtual environment elsewhere")
    root, place = tmp_path / "root", tmp_path / "place"
    root.mkdir()
    with planned(place) as (pipeline, uri):
        env = {k: v.replace(str(image.root), "") for k, v in image.env.items()} | {"PATH": "/opt/stockpot/bin:/usr/bin:/bin", "STOCKPOT_REMOTE": "/tmp/remote"}
        words = [*(f"{k}={v}" for k, v in env.items()), "python", "-m", "components.pipeline.unit", uri.replace(str(place), "/tmp")]
        script = str(ROOT / "tests/infra/read_only.sh")
        done = subprocess.run(["unshare", "-m", "sh", script, str(root), str(image.root), str(place), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (place / "remote").stat().st_uid == Cluster.model_fields["user"].default
        assert pipeline.ensure("draw", {}, lambda _: None).reused
