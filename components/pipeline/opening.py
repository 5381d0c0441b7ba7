"""Recipe + this machine -> a planned pipeline, in a throw-away compile folder of its own."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.pipeline.closure import code_root
from components.pipeline.content import Content
from components.pipeline.execute import Pipeline
from components.pipeline.graph import Compiled
from components.pipeline.launcher import Launcher
from components.pipeline.local import Local
from components.pipeline.plan import Plan, make_plan
from components.runtime import Runtime


@contextlib.contextmanager
def open_pipeline(
    compiled: Compiled, root: Path, home: Path, store: str, profile: Runtime, *, revision: str | None = None, revised: Sequence[str] = (), run: str = ""
) -> Iterator[Pipeline]:
    """Plans `compiled` over the DVC project at `root`; the code is snapshot until the context ends.

    The checkout's own params.yaml and dvc.yaml are not touched. `store`: path or s3:// prefix of checkpoints.
    `run`: whose Jobs these are, in a cluster. `revision`: the git revision that the inputs in `revised` are taken from.
    """
    (home / "plans").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / "plans") as folder:
        compiled.write(Path(folder))
        content = Content(root)
        earlier = content.at_revision(revision, revised, Path(folder)) if revision else {}
        plan = make_plan(Path(folder), code_root(), content, Path(folder, "code"), earlier)
        where = store if "://" in store else str(Path(store).absolute())
        launcher = open_launcher(profile, content, plan, home=home.absolute(), store=where, run=run)
        try:
            yield Pipeline(plan, content, profile, home.absolute(), where, launcher)
        finally:
            launcher.close()


def open_launcher(runtime: Runtime, content: Content, plan: Plan, *, home: Path, store: str, run: str) -> Launcher:
    """As the profile says. Raises SetupError when its cluster can not be used."""
    if runtime.cluster is None:
        return Local(runtime, content, home, store, plan.snapshot)
    from components.pipeline.cluster.launcher import Kubernetes

    return Kubernetes(runtime, content, home=home, store=store, run=run)
