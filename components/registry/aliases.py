"""The MLflow registry as a projection of the promotion log: one version per package, verdicts as tags, three aliases.

MLflow knows no compare-and-swap, so nothing here decides anything: whatever a race or a kill leaves behind, `project` puts right.
"""

import contextlib
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from components.errors import SetupError, TransientError
from components.registry.digest import package_files
from components.registry.promotion_log import Entry, PromotionLog, State, state
from components.tracking.parent import page_of_run
from components.tracking.store import artifact_location, client, ensure_experiment, without_password

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

ATTEMPTS = 50
"""Rounds against others who change the same model at the same time."""
PACKAGE = "stockpot.package"
"""Tag of a version: the digest of its package."""


@dataclass(frozen=True)
class Change:
    """One thing that MLflow shows otherwise than the log says. `version` is None for an alias that must go."""

    kind: Literal["alias", "tag", "duplicate", "missing"]
    key: str
    version: str | None
    value: str = ""


def wanted_aliases(now: State) -> dict[str, Entry | None]:
    """`champion`: the best; `previous`: the champion before; `challenger`: the package that was judged last, whatever the verdict."""
    return {"champion": now.champion, "challenger": now.challenger, "previous": now.previous}


def alias_of(now: State, package: str) -> str | None:
    """The first of champion, challenger, previous that `package` holds."""
    return next((alias for alias, entry in wanted_aliases(now).items() if entry and entry.package == package), None)


class Registry:
    """The registered model `stockpot-<name>` at one MLflow address. Raises SetupError when nothing answers there; its methods raise MLflow's errors."""

    def __init__(self, tracking_uri: str, name: str) -> None:
        self.tracking_uri, self.model = tracking_uri, f"stockpot-{name}"
        self.client = client(tracking_uri)

    def versions(self) -> "dict[str, list[ModelVersion]]":
        """Package digest -> its versions, lowest first. More than one is what a race of two registrations left; the lowest counts."""
        found: dict[str, list[ModelVersion]] = {}
        for v in sorted(self._search(), key=lambda v: int(v.version)):
            if package := v.tags.get(PACKAGE):
                found.setdefault(package, []).append(v)
        return found

    def register(self, folder: Path, digest: str, *, run_id: str | None, experiment: str, tags: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """The version of the package in `folder`, made when there is none, and where its files are: {run_id, artifact}.

        README.md describes it, with a link to the report of `run_id`, the pipeline run that made it.
        The files become artifacts of the run, or of one of its own in `experiment`. Raises SetupError when others could not load them there.
        """
        artifact = f"package-{digest[:12]}"
        if versions := self.versions().get(digest):
            return int(versions[0].version), {"run_id": versions[0].run_id or "", "artifact": artifact}
        run, own = run_id or self._own_run(experiment, digest), run_id is None
        self._check_root(run)
        for name in package_files(folder):
            self.client.log_artifact(run, str(folder / name), f"{artifact}/{name}".rpartition("/")[0])
        if own:
            self.client.set_terminated(run, "FINISHED")
        card = folder / "README.md"
        where = {"run_id": run, "artifact": artifact}
        words = [] if own else [f"[Report of its evaluation]({page_of_run(self.tracking_uri, run)}/artifacts/report.html)"]
        words += [card.read_text(encoding="utf-8")] if card.is_file() else []
        self._create(digest, where, tags, "\n\n".join(words))
        return int(self.versions()[digest][0].version), where

    def project(self, log: PromotionLog) -> None:
        """Makes MLflow show what the log says, and looks again until it does: others may write at the same time.

        What can not be mended is a warning. Raises TransientError when others never stop.
        """
        hopeless: set[Change] = set()
        for _ in range(ATTEMPTS):
            entries = log.read()
            changes = [change for change in self.changes(entries) if change not in hopeless]
            if not changes:
                return
            for change in changes:
                with _collisions(self.model):
                    if not self._apply(change, state(entries)):
                        hopeless.add(change)
        raise TransientError(f"{self.model}: others keep changing it in MLflow: run the same command again")

    def changes(self, entries: Sequence[Entry]) -> list[Change]:
        """What MLflow shows otherwise than `entries` say; empty: the projection is right."""
        versions = self.versions()
        shows = {alias: str(version) for alias, version in self._model_aliases().items()}
        changes = [Change("duplicate", package, str(extra.version)) for package, found in versions.items() for extra in found[1:]]
        for alias, entry in wanted_aliases(state(entries)).items():
            version = str(versions[entry.package][0].version) if entry and entry.package in versions else None
            if entry and version is None:
                changes.append(Change("missing", alias, None, entry.package))
            elif shows.get(alias) != version:
                changes.append(Change("alias", alias, version))
        for package, tags in _verdict_tags(entries).items():
            for v in versions.get(package, [])[:1]:
                changes += [Change("tag", key, str(v.version), value) for key, value in tags.items() if v.tags.get(key) != value]
        return changes

    def _apply(self, change: Change, now: State) -> bool:
        """False: nothing helps."""
        if change.kind == "missing":
            return self._restore(change.key, now)
        if change.kind == "tag":
            self.client.set_model_version_tag(self.model, str(change.version), change.key, change.value)
        elif change.kind == "duplicate":
            self.client.delete_model_version(self.model, str(change.version))
        elif change.version is None:
            self.client.delete_registered_model_alias(self.model, change.key)
        else:
            self.client.set_registered_model_alias(self.model, change.key, change.version)
        return True

    def _restore(self, alias: str, now: State) -> bool:
        """Makes the version of a package again that somebody deleted, from the run that still holds its files; else a warning."""
        entry = wanted_aliases(now)[alias]
        assert entry is not None
        where = {k: entry.lineage[k] for k in ("run_id", "artifact") if k in entry.lineage}
        if where and self._or_none(self.client.list_artifacts, where["run_id"], where["artifact"]):
            if entry.package not in self.versions():
                self._create(entry.package, where, version_tags(entry.package, entry.model, entry.scores), entry.reason)
            return True
        logger.warning("%s: the %s, package %s, has no version in MLflow and its files are gone: promote it again", self.model, alias, entry.package[:12])
        return False

    def _create(self, digest: str, where: Mapping[str, str], tags: Mapping[str, str], description: str) -> None:
        """A registered model and a version in it. Two at once may make two versions: the lowest counts, `project` removes the other."""
        source = f"{self.client.get_run(where['run_id']).info.artifact_uri}/{where['artifact']}"
        for _ in range(ATTEMPTS):
            with _collisions(self.model):
                if self._or_none(self.client.get_registered_model, self.model) is None:
                    self.client.create_registered_model(self.model)
                if digest not in self.versions():
                    self.client.create_model_version(self.model, source, where["run_id"], tags={**tags, PACKAGE: digest}, description=description)
                return
        raise TransientError(f"{self.model}: others keep changing it in MLflow: run the same command again")

    def _own_run(self, experiment: str, digest: str) -> str:
        run = self.client.create_run(ensure_experiment(self.client, self.tracking_uri, experiment), run_name=f"register-{digest[:12]}")
        return run.info.run_id

    def _check_root(self, run_id: str) -> None:
        """A server takes any artifact location; one on this machine's disk is no use to others and may be anybody's folder."""
        uri = str(self.client.get_run(run_id).info.artifact_uri)
        ours = artifact_location(self.tracking_uri)
        safe = urlsplit(uri).scheme not in ("", "file") or (ours is not None and uri.startswith(f"{ours}/"))
        if not safe:
            expected = f"a place below {ours}" if ours else "a place that the server offers, such as mlflow-artifacts:/ or s3://"
            where = without_password(self.tracking_uri)
            raise SetupError(
                f"MLflow at {where} keeps this run's files at {uri}; expected {expected}: use a new experiment, or `mlflow server --serve-artifacts`"
            )

    def _search(self) -> "list[ModelVersion]":
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = '{self.model}'", max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _model_aliases(self) -> dict[str, Any]:
        model = self._or_none(self.client.get_registered_model, self.model)
        return model.aliases if model else {}

    @staticmethod
    def _or_none(call: Any, *arguments: Any) -> Any:
        """The answer, or None when MLflow does not have what is asked for."""
        from mlflow.exceptions import MlflowException

        try:
            return call(*arguments)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None


@contextlib.contextmanager
def _collisions(model: str) -> Iterator[None]:
    """Two who write the same row of MLflow's database at once: one of them gets an error. It looks again a moment later."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        expected = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
        if not expected and not any(text in str(error) for text in ("UNIQUE constraint", "duplicate key", "Duplicate entry", "StaleDataError")):
            raise
        logger.info("%s: another process changes it in MLflow too; looking again", model)
        time.sleep(random.uniform(0.01, 0.1))


def version_tags(package: str, model: str, scores: Mapping[str, Any]) -> dict[str, str]:
    """Tags that a version has from its birth."""
    return {PACKAGE: package, "stockpot.model": model, "stockpot.overall": str(scores["overall"])}


def _verdict_tags(entries: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """Package -> what the log said about it last."""
    said = {True: "promoted", False: "refused"}
    return {e.package: {"stockpot.verdict": said[e.promoted], "stockpot.reason": e.reason, "stockpot.entry": str(e.seq)} for e in entries}
