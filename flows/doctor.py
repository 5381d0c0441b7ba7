"""`stockpot doctor`: is this machine ready? One line a check, each with its remedy."""

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from components.errors import StockpotError
from components.pipeline.content import Content
from components.pipeline.graph import ENGINE
from components.runtime import load_runtime
from components.settings import Settings
from components.steps_table import STEPS
from components.storage import open_storage
from components.tracking.store import check_mlflow, default_uri
from flows.prefect_server import answers, server_address

LEAST_FREE_GIB = 2.0


def doctor(profile: str | None, as_json: bool) -> int:
    """Prints the checks; 0 when all that are needed pass, else 2."""
    settings = Settings()
    profile = profile or settings.profile
    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": _packages,
        "project": _project,
        "disk": lambda: _disk(settings.home),
        "profile": lambda: f"{profile}: {load_runtime(profile).model_dump_json(exclude_defaults=True)}",
        "units": lambda: _units(profile, settings),
        "remote": _remote,
        "store": lambda: _store(settings),
        "mlflow": lambda: _mlflow(settings),
        "prefect": lambda: _prefect(settings),
        "accelerator": _accelerator,
    }
    results = [_examine(name, check) for name, check in checks.items()]
    if as_json:
        sys.stdout.write(json.dumps(results) + "\n")
    else:
        out = Console(highlight=False, soft_wrap=True)
        for r in results:
            out.print(f"{'[green]✔[/green]' if r['ok'] else '[red]✘[/red]'} {r['check']:<12} {r['says']}")
    return 0 if all(r["ok"] for r in results) else 2


def _examine(name: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"check": name, "ok": True, "says": check()}
    except StockpotError as error:
        return {"check": name, "ok": False, "says": str(error)}


def _python() -> str:
    return sys.version.split()[0]


def _packages() -> str:
    names = [*ENGINE, "prefect", "mlflow", "dvc"]
    try:
        return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
    except importlib.metadata.PackageNotFoundError as error:
        raise StockpotError(f"{error.name} is not installed: run `make install`") from error


def _project() -> str:
    missing = [p for p in (".dvc", "recipes", "components") if not Path(p).is_dir()]
    if missing:
        raise StockpotError(f"{Path.cwd()}: no {', '.join(missing)} here: run stockpot in a clone of the project")
    return str(Path.cwd())


def _disk(home: Path) -> str:
    free = shutil.disk_usage(home if home.exists() else Path()).free / 2**30
    if free < LEAST_FREE_GIB:
        raise StockpotError(f"{free:.1f} GiB free at {home.absolute()}: at least {LEAST_FREE_GIB:.0f} GiB are needed")
    return f"{free:.1f} GiB free"


def _remote() -> str:
    content = Content(Path())
    if content.remote is None:
        return "no DVC remote: finished steps stay on this machine"
    content.lookup("0" * 64)
    return content.remote.title


def _store(settings: Settings) -> str:
    open_storage(settings.store).list("promotions/")
    return f"checkpoints and promotions in {settings.store}"


def _units(profile: str, settings: Settings) -> str:
    runtime = load_runtime(profile)
    if runtime.cluster is None:
        return "run as processes of this machine"
    from components.pipeline.cluster.launcher import Kubernetes

    store = settings.store if "://" in settings.store else str(Path(settings.store).absolute())
    launcher = Kubernetes(runtime, Content(Path()), home=settings.home.absolute(), store=store, run="doctor")
    launcher.check(list(STEPS))
    return f"run as Jobs in namespace {launcher.api.namespace} of {launcher.api.address}"


def _mlflow(settings: Settings) -> str:
    uri = settings.tracking_uri or default_uri(settings.home)
    check_mlflow(uri)
    return uri


def _prefect(settings: Settings) -> str:
    url = server_address(settings)
    return f"server at {url}" if answers(url) else "no server running: `stockpot run` starts a temporary one, `make ui` one that stays"


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return "none: training runs on the CPU (gloo)"
