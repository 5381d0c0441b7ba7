"""A Dockerfile's steps, run in a folder: each stage is a root of its own below it, and commands that name /opt or /src mean the folder's.

A RUN line runs as it stands but for these names. The base images, packages and tools that an image takes from a registry are those of this machine.
"""

import glob
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OWN = ("/opt", "/src", "/scratch")
"""Folders that the images make."""


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """(FROM | RUN | COPY | ..., its words), comments and line breaks taken out."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


@dataclass
class Stage:
    """What a stage has become."""

    base: str
    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"

    def there(self, path: str) -> Path:
        """A path of the image, below the stage's root."""
        return self.root / str(Path(self.workdir) / path).lstrip("/")

    def moved(self, text: str) -> str:
        """Text that names the image's own folders, meaning those below the root."""
        return re.sub(rf"(?<![\w./-])({'|'.join(OWN)})(?![\w-])", rf"{self.root}\1", text)


class Build:
    """Runs the steps of `dockerfile` over `context`. `skip` says which RUN commands are left out: what they would do is the caller's to stand in for."""

    def __init__(self, dockerfile: Path, context: Path, folder: Path, environment: Mapping[str, str], skip: Callable[[str], bool]) -> None:
        self.context, self.folder, self.environment, self.skip = context, folder, dict(environment), skip
        self.stages: dict[str, Stage] = {}
        self.skipped: list[str] = []
        self.command: list[str] = []
        arguments: dict[str, str] = {}
        for word, rest in instructions(dockerfile):
            if word == "ARG":
                name, _, default = rest.partition("=")
                arguments.setdefault(name, default)
            elif word == "FROM":
                base, _, name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest).partition(" AS ")
                stage = self.stages[name or "final"] = Stage(base, folder / (name or "final"))
                stage.root.mkdir(parents=True)
            else:
                getattr(self, f"_{word.lower()}")(stage, rest)

    @property
    def image(self) -> Stage:
        """The last stage."""
        return list(self.stages.values())[-1]

    def _env(self, stage: Stage, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            stage.env[name] = stage.moved(value.replace("$PATH", self.environment["PATH"]))

    def _workdir(self, stage: Stage, rest: str) -> None:
        stage.workdir = rest
        stage.there("").mkdir(parents=True, exist_ok=True)

    def _user(self, stage: Stage, rest: str) -> None:
        stage.user = rest

    def _cmd(self, stage: Stage, rest: str) -> None:
        self.command = [w.strip(' "') for w in rest.strip("[]").split(",")]

    def _copy(self, stage: Stage, rest: str) -> None:
        words = rest.split()
        source, base = self.context, None
        if words[0].startswith("--from="):
            base = self.stages[words.pop(0).removeprefix("--from=")]
            if not any(base.root.iterdir()):  # an image from a registry: its programs are this machine's
                return
        target = stage.there(words[-1])
        for word in words[:-1]:
            files = [base.there(word)] if base else [Path(p) for p in glob.glob(str(source / word))]  # noqa: PTH207
            assert files, f"COPY {word}: not there"
            for file in files:
                if file.is_dir():
                    shutil.copytree(file, target, symlinks=True, dirs_exist_ok=True)
                else:
                    into = target / file.name if words[-1].endswith("/") or len(words) > 2 else target
                    into.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, into)

    def _run(self, stage: Stage, rest: str) -> None:
        if self.skip(rest):
            self.skipped.append(rest)
            return
        command = stage.moved(rest)
        done = subprocess.run(
            ["sh", "-c", command], cwd=stage.there(""), env={**self.environment, **stage.env}, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"
