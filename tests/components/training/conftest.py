import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components import steps
from tests.components.training.corpus import write_project

Train = Callable[..., Path]


@pytest.fixture(autouse=True)
def default_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STOCKPOT_UNIT_PROFILE", "STOCKPOT_CKPT", "STOCKPOT_UNIT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the stages llm, vision and projector of micro.yaml have run, one after the other. Tests copy it."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name in ("llm", "vision", "projector"):
            steps.run(name)
    finally:
        os.chdir(before)
    return folder
