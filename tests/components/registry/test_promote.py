import base64
import io
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.models import Model
from PIL import Image

from components.errors import DataError, PermanentError, SetupError
from components.recipe.gate import Gate
from components.registry.digest import folder_digest
from components.registry.predict import predict
from components.registry.promote import intact, promote, repair, rollback
from components.registry.promotion_log import PromotionLog
from components.settings import Settings
from components.storage import Folder
from components.tracking.parent import open_parent
from components.tracking.store import client, default_uri
from tests.components.registry.conftest import scores_of
from tests.components.registry.test_package import predict_outside

MODEL = "stockpot-tiny"


@pytest.fixture
def uri(tmp_path, fresh_store):
    (tmp_path / "home").mkdir()
    shutil.copy(fresh_store, tmp_path / "home")
    return default_uri(tmp_path / "home")


@pytest.fixture
def store(tmp_path):
    return Folder(tmp_path / "store")


def small_package(folder, content):
    """A package as the registry sees one: an MLmodel that names its model, and something in it."""
    folder.mkdir(parents=True)
    Model(metadata={"model_digest": content}, model_uuid="0" * 32, utc_time_created="2000-01-01").save(str(folder / "MLmodel"))
    (folder / "weights").write_text(content)
    (folder / "README.md").write_text(f"# {content}\n")
    return folder


@pytest.fixture
def submit(tmp_path, store, uri):
    """Promotes a small package of that name and score."""

    def go(content, overall, gate=Gate(), **more):  # noqa: B008
        folder = tmp_path / "packages" / content
        folder = folder if folder.exists() else small_package(folder, content)
        return promote(folder, scores_of(overall, content), "tiny", gate, store, uri, **more)

    return go


def aliases(uri):
    return {alias: int(version) for alias, version in client(uri).get_registered_model(MODEL).aliases.items()}


def versions(uri):
    return {int(v.version): v for v in client(uri).search_model_versions(f"name = '{MODEL}'")}


def test_better_is_promoted_worse_and_equal_are_refused(submit, uri):
    first = submit("a", 0.5)
    assert (first.name, first.version, first.alias, first.promoted, first.reused) == (MODEL, 1, "champion", True, False)
    better = submit("b", 0.6)
    assert (better.version, better.alias, better.promoted) == (2, "champion", True)
    assert better.reason == "overall 0.6 is better than the champion's 0.5"
    worse, tie = submit("c", 0.55), submit("d", 0.6)
    assert (worse.alias, worse.promoted, worse.reason) == ("challenger", False, "overall 0.55 is worse than the champion's 0.6")
    assert (tie.version, tie.alias, tie.promoted, tie.reason) == (4, "challenger", False, "overall 0.6 equals the champion's 0.6")
    assert aliases(uri) == {"champion": 2, "previous": 1, "challenger": 4}
    tags = versions(uri)[3].tags
    assert (tags["stockpot.verdict"], tags["stockpot.overall"], tags["stockpot.model"], tags["stockpot.entry"]) == ("refused", "0.55", "c", "2")


def test_promoting_again_changes_nothing(submit, uri, store):
    submit("a", 0.5)
    before = submit("b", 0.4)
    again, champion = submit("b", 0.4), submit("a", 0.5)
    assert again == type(again)(**{**vars(before), "reused": True})
    assert (champion.alias, champion.reused, champion.promoted) == ("champion", True, True)
    assert len(PromotionLog(store, "tiny").read()) == len(versions(uri)) == 2


def test_a_new_policy_or_champion_means_a_new_verdict_but_no_new_version(submit, uri, store):
    submit("a", 0.5)
    assert not submit("b", 0.55, gate=Gate(margin=0.1)).promoted
    assert submit("b", 0.55).promoted
    assert len(PromotionLog(store, "tiny").read()) == 3
    assert len(versions(uri)) == 2
    assert not submit("c", 0.9, gate=Gate(minimum=0.95)).promoted


def test_a_version_carries_card_lineage_and_the_run_that_made_it(submit, uri, tmp_path):
    parent = open_parent(uri, "stockpot", "run", {})
    outcome = submit("a", 0.5, run_id=parent, tags={"stockpot.data": "d1"})
    version = versions(uri)[outcome.version]
    assert (version.run_id, version.tags["stockpot.data"], version.tags["stockpot.recipe"]) == (parent, "d1", "tiny")
    assert version.description.endswith("# a\n")
    assert f"/runs/{parent}/artifacts/report.html" in version.description
    assert version.source.startswith((tmp_path / "home/mlartifacts").as_uri())
    assert client(uri).get_run(parent).info.status == "RUNNING"  # the run goes on
    other = submit("b", 0.6)
    own = versions(uri)[other.version]
    assert client(uri).get_run(own.run_id).info.status == "FINISHED"


def test_what_lies_in_the_artifacts_is_the_package_without_bytecode(submit, uri, tmp_path):
    folder = small_package(tmp_path / "packages/a", "a")
    (folder / "code/__pycache__").mkdir(parents=True)
    (folder / "code/__pycache__/x.pyc").write_bytes(b"x")
    submit("a", 0.5)
    (stored,) = (tmp_path / "home/mlartifacts").rglob("MLmodel")
    assert folder_digest(stored.parent) == folder_digest(folder)
    assert not list(stored.parent.rglob("*.pyc"))


def test_rollback_brings_the_previous_champion_back_and_bars_the_other(submit, uri, store):
    submit("a", 0.5)
    bad = submit("b", 0.6)
    back = rollback("tiny", store, uri)
    assert (back.version, back.alias) == (1, "champion")
    assert aliases(uri) == {"champion": 1, "challenger": 2}
    again = submit("b", 0.6)  # the next scheduled run must not undo what a person did
    assert (again.promoted, again.alias) == (False, "challenger")
    assert "rolled back" in again.reason
    assert submit("b", 0.6).reused
    with pytest.raises(PermanentError, match=r"stockpot-tiny: the champion .* is the first one"):
        rollback("tiny", store, uri)
    assert submit("c", 0.55).promoted  # judged against the champion of now
    forward = rollback("tiny", store, uri, to=bad.package)
    assert (forward.version, aliases(uri)["champion"], aliases(uri)["previous"]) == (2, 2, 3)


def test_intact_sees_a_missing_verdict_and_a_projection_that_was_touched(submit, uri, store, tmp_path):
    first = submit("a", 0.5)
    folder = tmp_path / "packages/a"
    assert intact(folder, "tiny", Gate(), store, uri) == type(first)(**{**vars(first), "reused": True})
    other = small_package(tmp_path / "packages/b", "b")
    assert intact(other, "tiny", Gate(), store, uri) is None
    submit("b", 0.4)
    assert intact(other, "tiny", Gate(), store, uri) is not None
    assert intact(other, "tiny", Gate(margin=0.1), store, uri) is None
    c = client(uri)
    for touch in (
        lambda: c.set_registered_model_alias(MODEL, "champion", "2"),
        lambda: c.delete_registered_model_alias(MODEL, "challenger"),
        lambda: c.set_registered_model_alias(MODEL, "previous", "1"),
        lambda: c.set_model_version_tag(MODEL, "2", "stockpot.verdict", "promoted"),
        lambda: c.delete_model_version(MODEL, "1"),
    ):
        touch()
        assert intact(folder, "tiny", Gate(), store, uri) is None
        repair("tiny", store, uri)
        assert intact(folder, "tiny", Gate(), store, uri) is not None


def test_a_run_with_nothing_to_do_does_not_start_mlflow(submit, uri, store, tmp_path):
    before = submit("a", 0.5)
    folder = tmp_path / "packages/a"
    code = """
import sys, pathlib
from components.recipe.gate import Gate
from components.registry.promote import intact
from components.storage import Folder
outcome = intact(pathlib.Path(sys.argv[1]), "tiny", Gate(), Folder(pathlib.Path(sys.argv[2])), sys.argv[3])
print(outcome and (outcome.version, outcome.alias, outcome.reused), "mlflow" in sys.modules)
"""

    def ask():
        done = subprocess.run([sys.executable, "-c", code, folder, store.root, uri], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert intact(folder, "tiny", Gate(), store, uri) == type(before)(**{**vars(before), "reused": True})
    assert ask() == "(1, 'champion', True) False"
    submit("b", 0.4)  # another verdict in the log, another row in MLflow
    assert ask() == "(1, 'champion', True) True"


def test_aliases_of_others_are_left_alone(submit, uri):
    submit("a", 0.5)
    client(uri).set_registered_model_alias(MODEL, "blue", "1")
    submit("b", 0.6)
    assert aliases(uri) == {"blue": 1, "previous": 1, "champion": 2, "challenger": 2}


def test_a_deleted_champion_is_made_again_from_its_files_and_missed_when_they_are_gone(submit, uri, store, tmp_path, caplog):
    submit("a", 0.5)
    client(uri).delete_model_version(MODEL, "1")
    assert submit("b", 0.4).alias == "challenger"
    champion = versions(uri)[aliases(uri)["champion"]]
    assert (champion.tags["stockpot.model"], champion.tags["stockpot.verdict"]) == ("a", "promoted")
    client(uri).delete_model_version(MODEL, champion.version)
    shutil.rmtree(next(p for p in (tmp_path / "home/mlartifacts").rglob("package-*") if (p / "weights").read_text() == "a"))
    with caplog.at_level(logging.WARNING):
        repair("tiny", store, uri)
    assert "stockpot-tiny: the champion" in caplog.text
    assert "champion" not in aliases(uri)
    assert submit("a", 0.5).alias == "champion"


def test_everything_comes_back_when_the_mlflow_store_is_lost(submit, uri, store, tmp_path, fresh_store):
    submit("a", 0.5)
    submit("b", 0.6)
    elsewhere = tmp_path / "new home"
    elsewhere.mkdir()
    shutil.copy(fresh_store, elsewhere)
    new = default_uri(elsewhere)
    for content, overall in (("a", 0.5), ("b", 0.6)):
        assert promote(tmp_path / "packages" / content, scores_of(overall, content), "tiny", Gate(), store, new).reused == (content == "b")
    assert aliases(new)["champion"] == versions_of(new, "b")


def versions_of(uri, content):
    (version,) = [n for n, v in versions(uri).items() if v.tags["stockpot.model"] == content]
    return version


@pytest.mark.parametrize("damage", ["no MLmodel", "other model", "no overall", "no folder"])
def test_packages_and_scores_that_do_not_fit_are_refused_before_anything_is_registered(tmp_path, store, uri, damage):
    folder, scores = small_package(tmp_path / "p", "a"), scores_of(0.5, "a")
    if damage == "no MLmodel":
        (folder / "MLmodel").unlink()
    elif damage == "other model":
        scores["model_digest"] = "b"
    elif damage == "no overall":
        del scores["overall"]
    else:
        folder = tmp_path / "nothing here"
    with pytest.raises(DataError, match=r"run the step"):
        promote(folder, scores, "tiny", Gate(), store, uri)
    assert PromotionLog(store, "tiny").read() == []
    assert client(uri).search_registered_models() == []


def test_a_damaged_log_stops_promotion_before_anything_is_registered(submit, uri, tmp_path):
    submit("a", 0.5)
    submit("b", 0.6)
    (tmp_path / "store/promotions/tiny/00000000.json").unlink()
    with pytest.raises(DataError, match=r"00000000\.json: missing"):
        submit("c", 0.7)
    assert len(versions(uri)) == 2


def test_a_run_whose_files_lie_in_a_foreign_place_is_refused(submit, uri, tmp_path):
    c = client(uri)
    run = c.create_run(c.create_experiment("foreign", artifact_location=(tmp_path / "foreign").as_uri()))
    with pytest.raises(SetupError, match=r"keeps this run's files at .*foreign"):
        submit("a", 0.5, run_id=run.info.run_id)
    assert versions(uri) == {}


def test_an_unreachable_server_is_named(tmp_path, store):
    folder = small_package(tmp_path / "p", "a")
    with pytest.raises(SetupError, match=r"http://127\.0\.0\.1:9: the MLflow server does not answer"):
        promote(folder, scores_of(0.5, "a"), "tiny", Gate(), store, "http://127.0.0.1:9")


def test_the_champion_answers_in_a_process_that_can_not_import_this_repository(packaged, store, uri, tmp_path):
    scores = scores_of(0.5, Model.load(str(packaged / "MLmodel")).metadata["model_digest"])
    promote(packaged, scores, "tiny", Gate(), store, uri)
    data = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(data, "PNG")
    (tmp_path / "red.png").write_bytes(data.getvalue())
    champion = f"models:/{MODEL}@champion"
    result = predict_outside(champion, base64.b64encode(data.getvalue()).decode(), tmp_path, MLFLOW_TRACKING_URI=uri)
    assert result["loaded"] == []
    assert "stockpot_vlm.vlm" in result["ours"]
    settings = Settings.model_construct(tracking_uri=uri)
    answer = predict(champion, tmp_path / "red.png", "What colour is the circle?", settings)
    assert answer.startswith(result["answers"][0])  # asked for more tokens
    with pytest.raises(SetupError, match="no such model"):
        predict(f"models:/{MODEL}@nobody", tmp_path / "red.png", "What?", settings)
    with pytest.raises(DataError, match=r"nothing\.png: no such file"):
        predict(champion, tmp_path / "nothing.png", "What?", settings)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png: image: no picture"):
        predict(champion, tmp_path / "text.png", "What?", settings)


class Deadly(Folder):
    """Kills its process after some writes: between the log and the aliases."""

    def __init__(self, root, seed):
        super().__init__(root)
        self.random = random.Random(seed)

    def put_new(self, key, data):
        done = super().put_new(key, data)
        if done and self.random.random() < 0.4:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def _promoter(home: Path, number: int) -> None:
    """Promotes six packages, two of which its neighbour promotes too."""
    for i in range(6):
        content = f"{number // 2}-{i}" if i < 2 else f"{number}-{i}"
        overall = (sum(map(ord, content)) * 37 % 100) / 100
        promote(home / "packages" / content, scores_of(overall, content), "tiny", Gate(), Deadly(home / "store", number * 10 + i), default_uri(home / "home"))


def test_racing_promoters_some_of_them_killed_lose_nothing(tmp_path, uri, store):
    contents = sorted({f"{n // 2}-{i}" if i < 2 else f"{n}-{i}" for n in range(4) for i in range(6)})
    for content in contents:
        small_package(tmp_path / "packages" / content, content)
    context = multiprocessing.get_context("fork")
    killed = 0
    waiting = list(range(4))
    while waiting:  # as a scheduler would: whoever was killed is started again
        children = {n: context.Process(target=_promoter, args=(tmp_path, n)) for n in waiting}
        for child in children.values():
            child.start()
        for child in children.values():
            child.join()
        waiting = [n for n, child in children.items() if child.exitcode == -signal.SIGKILL]
        killed += len(waiting)
        assert all(child.exitcode in (0, -signal.SIGKILL) for child in children.values())
    assert killed >= 4
    repair("tiny", store, uri)
    entries = PromotionLog(store, "tiny").read()
    best = None
    for e in entries:
        assert e.against == (best and best.package)
        best = e if e.promoted else best
    assert best.scores["overall"] == max(e.scores["overall"] for e in entries)
    assert {e.model for e in entries} == set(contents)
    found = versions(uri)
    assert sorted(v.tags["stockpot.model"] for v in found.values()) == contents  # none lost, none doubled
    assert found[aliases(uri)["champion"]].tags["stockpot.model"] == best.model
    assert found[aliases(uri)["challenger"]].tags["stockpot.model"] == entries[-1].model
    assert intact(tmp_path / "packages" / best.model, "tiny", Gate(), store, uri) is not None
