"""What the tests of images and clusters share: the image for CPUs, built as far as it can be without a registry."""

import os
import shutil
import sys
from pathlib import Path

import boto3
import pytest

from tests.conftest import ROOT, common, once
from tests.infra.dockerfile import Build, Stage

PACKAGES = Path(boto3.__file__).parents[1]
"""Where this machine's packages are."""
PROGRAMS = ("sh", "cp", "env", "mkdir", "rm", "cat", "uname")
"""Programs of the base image, without git."""


def uv_program() -> str:
    """uv, which builds the images."""
    uv = pytest.importorskip("uv", reason="the images are built with uv, which could not be installed here")
    return uv.find_uv_bin()


def installs_packages(command: str) -> bool:
    """The step whose packages are this machine's, and the one that makes a user of this machine."""
    return "--requirement" in command or command.startswith("useradd")


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Stage:
    """The image for CPUs: environment and root folder."""
    folder = common(request.config) / "image"

    def make() -> dict[str, object]:
        tools = folder / "tools"
        tools.mkdir()
        (tools / "uv").symlink_to(uv_program())
        mine = ("VIRTUAL_ENV", "PYTHONPATH", "UV_PYTHON")
        environment = {k: v for k, v in os.environ.items() if k not in mine} | {"PATH": f"{tools}:{sys.base_prefix}/bin:/usr/bin:/bin"}
        build = Build(ROOT / "infra/images/cpu.Dockerfile", ROOT, folder / "root", environment, installs_packages)
        assert len(build.skipped) == 2
        assert build.command == ["stockpot", "--help"]
        stage = build.image
        link(stage.root)
        programs = folder / "bin"
        programs.mkdir()
        for program in PROGRAMS:
            (programs / program).symlink_to(shutil.which(program) or f"/bin/{program}")
        stage.env["PATH"] = f"{stage.root}/opt/stockpot/bin:{programs}"
        return {**vars(stage), "root": str(stage.root)}

    made = once(folder, make)
    return Stage(**{**made, "root": Path(made["root"])})


def link(root: Path) -> None:
    """Puts the installed packages and their commands behind the image's own; Stockpot itself, installed as a checkout, is not among them."""
    here = root / "opt/stockpot"
    packages = next(here.glob("lib/python3*/site-packages"))
    (packages / "installed.pth").write_text(f"{PACKAGES}\n")
    for script in [*(here / "bin").iterdir(), *(PACKAGES.parents[2] / "bin").iterdir()]:
        own = here / "bin" / script.name  # its first line names the folder that it was made in, where it stays in a build
        if script.is_file() and not script.is_symlink() and (script == own or not own.exists()) and script.read_bytes()[:2] == b"#!":
            own.write_text(f"#!{here}/bin/python\n{script.read_text(encoding='utf-8').partition(chr(10))[2]}", encoding="utf-8")
            own.chmod(0o755)
