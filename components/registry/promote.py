"""`promote`: registers a package, lets the gate judge it, and shows the verdict in MLflow. Runs every time; safe to repeat and to race.

Order matters: the version first, the verdict (the promotion log) second, tags and aliases last. A kill in between loses nothing:
the next promote, or `repair`, goes on from what the log says.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import DataError
from components.recipe.gate import Gate
from components.registry.aliases import Registry, alias_of, version_tags
from components.registry.digest import folder_digest
from components.registry.gate import RULE, Verdict, judge, overall, policy_digest
from components.registry.promotion_log import Entry, PromotionLog, rollback_entry, standing_verdict, state, verdict_id
from components.registry.remembered import fingerprint, recall, remember
from components.storage import Storage
from components.tracking.store import explained

logger = logging.getLogger(__name__)

EXPERIMENT = "stockpot"
"""Where a package is kept that no pipeline run brings along."""


@dataclass(frozen=True)
class Outcome:
    """What became of a package. `alias`: the first of champion, challenger, previous that it holds now, or None.

    `promoted`: its verdict made it champion (it may have been replaced since); `reused`: the verdict had been given before.
    """

    name: str
    version: int
    alias: str | None
    promoted: bool
    reason: str
    reused: bool
    package: str


def promote(  # noqa: PLR0917  all but the last two are always given
    package_dir: Path,
    scores: Mapping[str, Any],
    name: str,
    gate: Gate,
    store: Storage,
    tracking_uri: str,
    *,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Outcome:
    """Registers the package as a version of `stockpot-<name>` (one version per package, ever) and lets `gate` decide.

    `scores`: the scores.json of the packaged model; `run_id`: the MLflow run that keeps the files (default: one of its own);
    `tags`: lineage (recipe digest, data digest, ...) for the version and the log. Refusal is an outcome, not an error.
    Raises DataError for a package or scores that are of no use or do not belong together, or a damaged log; SetupError when MLflow
    does not answer, TransientError when it or the store stops answering.
    """
    overall(scores)
    digest, log = folder_digest(package_dir), PromotionLog(store, name)
    log.read()
    registry = Registry(tracking_uri, name)
    with explained(tracking_uri):
        _check_belongs(package_dir, scores)
        born = {**version_tags(digest, scores["model_digest"], scores), "stockpot.recipe": name, **(tags or {})}
        version, where = registry.register(package_dir, digest, run_id=run_id, experiment=EXPERIMENT, tags=born)
        entry, reused = _verdict(log, digest, scores, gate, {**(tags or {}), **where})
        registry.project(log)
    now = log.state()
    logger.info("%s version %s: %s", registry.model, version, entry.reason)
    return Outcome(registry.model, version, alias_of(now, digest), entry.promoted, entry.reason, reused, digest)


def intact(package_dir: Path, name: str, gate: Gate, store: Storage, tracking_uri: str) -> Outcome | None:
    """The outcome of a verdict that stands, when MLflow shows all that the log says; None when `promote` has something to do.

    Changes nothing in log or MLflow. Fast (no MLflow) when nothing has been written to an embedded store since the last such call.
    Raises as `promote` does.
    """
    digest, log = folder_digest(package_dir), PromotionLog(store, name)
    entries = log.read()
    entry = standing_verdict(entries, digest, policy_digest(gate))
    if entry is None:
        return None
    model, alias = f"stockpot-{name}", alias_of(state(entries), digest)
    seen = fingerprint(tracking_uri, entries)
    versions = recall(tracking_uri, model, entries)
    if digest not in versions:
        registry = Registry(tracking_uri, name)
        with explained(tracking_uri):
            if registry.changes(entries):
                return None
            versions = {package: int(found[0].version) for package, found in registry.versions().items()}
        remember(tracking_uri, model, seen, versions)
    return Outcome(model, versions[digest], alias, entry.promoted, entry.reason, True, digest) if digest in versions else None


def repair(name: str, store: Storage, tracking_uri: str) -> None:
    """Makes MLflow's tags and aliases show what the log says. Raises as `promote` does."""
    registry = Registry(tracking_uri, name)
    with explained(tracking_uri):
        registry.project(PromotionLog(store, name))


def rollback(name: str, store: Storage, tracking_uri: str, to: str | None = None) -> Outcome:
    """Makes the previous champion champion again, or the former champion whose package digest is `to`. Returns the new champion.

    The package that it replaces is barred: the gate refuses it until a rollback leads back to it.
    Raises PermanentError when there is no such champion, else as `promote` does.
    """
    log = PromotionLog(store, name)
    registry = Registry(tracking_uri, name)
    before = log.state().champion
    entry = log.append(lambda entries, nonce: rollback_entry(entries, nonce, name=registry.model, target=to, expect=before and before.package))
    assert entry is not None
    with explained(tracking_uri):
        registry.project(log)
        versions = registry.versions().get(entry.package)
    if not versions:
        raise DataError(f"{registry.model}: rolled back in the log, but package {entry.package[:12]} has no version in MLflow: promote it again from its run")
    return Outcome(registry.model, int(versions[0].version), alias_of(log.state(), entry.package), True, entry.reason, False, entry.package)


def _verdict(log: PromotionLog, digest: str, scores: Mapping[str, Any], gate: Gate, lineage: dict[str, str]) -> tuple[Entry, bool]:
    """The entry that answers for this package, and whether it was there before."""
    policy = policy_digest(gate)
    standing: Entry | None = None

    def make(entries: list[Entry], nonce: str) -> Entry | None:
        nonlocal standing
        standing = standing_verdict(entries, digest, policy)
        if standing:
            return None
        now = state(entries)
        against = now.champion and now.champion.package
        verdict = Verdict(False, _barred(digest)) if digest in now.barred else judge(scores, now.champion and now.champion.scores, gate)
        settings = {"digest": policy, "rule": RULE, **gate.model_dump(mode="json")}
        return Entry(
            seq=len(entries),
            id=verdict_id(digest, policy, against),
            kind="promote",
            package=digest,
            model=scores["model_digest"],
            scores=_kept(scores),
            policy=settings,
            against=against,
            promoted=verdict.promoted,
            reason=verdict.reason,
            nonce=nonce,
            lineage=lineage,
        )

    entry = log.append(make) or standing
    assert entry is not None
    return entry, entry is standing


def _barred(digest: str) -> str:
    return f"package {digest[:12]} was champion and was rolled back: it stays refused until a rollback leads back to it"


def _kept(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The part of scores.json that the log keeps: all that the gate reads, and a line per benchmark."""
    kept = {k: scores[k] for k in ("split", "ruleset", "judge", "counted", "weights", "overall", "overall_ci95") if k in scores}
    return {**kept, "benchmarks": {n: {k: b.get(k) for k in ("value", "n", "ci95")} for n, b in scores.get("benchmarks", {}).items()}}


def _check_belongs(package_dir: Path, scores: Mapping[str, Any]) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        described = Model.load(str(package_dir / "MLmodel"))
    except (MlflowException, OSError) as error:
        raise DataError(f"{package_dir}: not an MLflow model directory (no MLmodel): run the step package again") from error
    packaged = (described.metadata or {}).get("model_digest")
    if packaged != scores.get("model_digest"):
        raise DataError(
            f"{package_dir}: holds model {str(packaged)[:12]}, but the scores are of {str(scores.get('model_digest'))[:12]}: run the step package again"
        )
