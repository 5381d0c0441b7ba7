import json
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError, PermanentError, TransientError
from components.registry.promotion_log import Entry, PromotionLog, rollback_entry, standing_verdict, state, verdict_id
from components.storage import Folder, open_storage


def promote(log, package, overall, policy="p"):
    """Judges by plain comparison and appends."""

    def make(entries, nonce):
        seq, champion = len(entries), state(entries).champion
        promoted = champion is None or overall > champion.scores["overall"]
        against = champion and champion.package
        ident = verdict_id(package, policy, against)
        return Entry(seq, ident, "promote", package, "m" + package, {"overall": overall}, {"digest": policy}, against, promoted, "because", nonce)

    return log.append(make)


def rollback(log, target=None, expect=None):
    return log.append(lambda entries, nonce: rollback_entry(entries, nonce, name=log.name, target=target, expect=expect))


def packages(log):
    now = log.state()
    return [c.package for c in now.champions]


def test_the_best_is_champion_and_the_one_before_is_previous(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    for package, score in [("a", 0.5), ("b", 0.7), ("c", 0.6)]:
        promote(log, package, score)
    now = log.state()
    assert (now.champion.package, now.previous.package, now.challenger.package) == ("b", "a", "c")
    assert sorted(p.name for p in (tmp_path / "promotions/tiny").iterdir()) == ["00000000.json", "00000001.json", "00000002.json"]


def test_a_second_reader_sees_the_same(tmp_path):
    first = PromotionLog(Folder(tmp_path), "tiny")
    promote(first, "a", 0.5)
    assert PromotionLog(Folder(tmp_path), "tiny").read() == first.read()
    assert PromotionLog(Folder(tmp_path), "other").read() == []


def test_a_verdict_is_found_again_for_the_same_package_policy_and_champion(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    promote(log, "a", 0.5)
    refused = promote(log, "b", 0.4)
    assert standing_verdict(log.read(), "b", "p") == refused
    assert standing_verdict(log.read(), "b", "other policy") is None
    assert standing_verdict(log.read(), "unknown", "p") is None
    promote(log, "c", 0.6)
    assert standing_verdict(log.read(), "b", "p") is None  # another champion, another question


def test_the_champion_has_its_verdict(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    entry = promote(log, "a", 0.5)
    assert standing_verdict(log.read(), "a", "any policy") == entry


def test_rollback_goes_back_one_champion_at_a_time(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    for package, score in [("a", 0.5), ("b", 0.6), ("c", 0.7)]:
        promote(log, package, score)
    rollback(log)
    assert packages(log) == ["a", "b"]
    rollback(log)
    assert packages(log) == ["a"]
    assert log.state().barred == {"b", "c"}
    with pytest.raises(PermanentError, match="no earlier champion"):
        rollback(log)


def test_a_verdict_from_before_a_rollback_does_not_bring_the_old_champion_back(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    promote(log, "a", 0.5)
    promote(log, "b", 0.6)
    rollback(log)
    assert standing_verdict(log.read(), "b", "p") is None
    assert standing_verdict(log.read(), "a", "p").promoted


def test_rollback_to_a_named_champion_lifts_its_bar(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    for package, score in [("a", 0.5), ("b", 0.6), ("c", 0.7)]:
        promote(log, package, score)
    rollback(log, "a")
    rollback(log, "c")
    assert packages(log) == ["a", "c"]
    assert log.state().barred == {"b"}


def test_rollback_refuses_what_makes_no_sense(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    with pytest.raises(PermanentError, match="no champion yet"):
        rollback(log)
    promote(log, "a", 0.5)
    with pytest.raises(PermanentError, match="never champion"):
        rollback(log, "x")
    with pytest.raises(PermanentError, match="champion already"):
        rollback(log, "a")
    promote(log, "b", 0.6)
    with pytest.raises(TransientError, match="meanwhile"):
        rollback(log, expect="a")
    assert len(log.read()) == 2


def test_a_gap_is_named(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    for package, score in [("a", 0.5), ("b", 0.6), ("c", 0.7)]:
        promote(log, package, score)
    (tmp_path / "promotions/tiny/00000001.json").unlink()
    with pytest.raises(DataError, match=r"00000001\.json: missing.*gap"):
        PromotionLog(Folder(tmp_path), "tiny").read()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"seq": 0}', '"text"'])
def test_a_damaged_entry_is_named(tmp_path, content):
    log = PromotionLog(Folder(tmp_path), "tiny")
    promote(log, "a", 0.5)
    (tmp_path / "promotions/tiny/00000000.json").write_text(content)
    with pytest.raises(DataError, match=r"00000000\.json: damaged"):
        PromotionLog(Folder(tmp_path), "tiny").read()


def test_an_entry_in_the_wrong_place_and_a_foreign_file_are_named(tmp_path):
    log = PromotionLog(Folder(tmp_path), "tiny")
    promote(log, "a", 0.5)
    folder = tmp_path / "promotions/tiny"
    (folder / "00000001.json").write_text((folder / "00000000.json").read_text())
    with pytest.raises(DataError, match=r"00000001\.json: holds entry 0"):
        PromotionLog(Folder(tmp_path), "tiny").read()
    (folder / "notes.json").write_text("{}")
    with pytest.raises(DataError, match=r"notes\.json: not an entry"):
        PromotionLog(Folder(tmp_path), "tiny").read()


class Forgetful(Folder):
    """A store that writes and then loses its answer: as 412 (False) or as a broken connection."""

    def __init__(self, root, broken):
        super().__init__(root)
        self.broken = broken

    def put_new(self, key, data):
        assert super().put_new(key, data)
        if self.broken:
            raise TransientError("connection broken")
        return False


@pytest.mark.parametrize("broken", [False, True])
def test_a_write_whose_answer_was_lost_counts_once(tmp_path, broken):
    log = PromotionLog(Forgetful(tmp_path, broken), "tiny")
    promote(log, "a", 0.5)
    assert [e.package for e in log.read()] == ["a"]


class Dead(Folder):
    def put_new(self, key, data):
        raise TransientError("no answer")


def test_a_write_that_did_not_happen_stays_an_error(tmp_path):
    with pytest.raises(TransientError, match="no answer"):
        promote(PromotionLog(Dead(tmp_path), "tiny"), "a", 0.5)


def _racer(store: str, number: int, racers: int) -> None:
    log = PromotionLog(open_storage(store), "tiny")
    for i in range(10):
        promote(log, f"{number}-{i}", (i * racers + number) / 100)


def race(store: str, num_racers: int) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_racer, args=(store, n, num_racers)) for n in range(num_racers)]
    for r in racers:
        r.start()
    for r in racers:
        r.join()
    assert [r.exitcode for r in racers] == [0] * num_racers
    entries = PromotionLog(open_storage(store), "tiny").read()
    assert [e.seq for e in entries] == list(range(10 * num_racers))
    assert len({e.package for e in entries}) == 10 * num_racers
    assert state(entries).champion.package == f"{num_racers - 1}-9"
    best = None
    for e in entries:  # every verdict was given against the champion of its moment
        assert e.against == (best and best.package)
        assert e.promoted == (best is None or e.scores["overall"] > best.scores["overall"])
        best = e if e.promoted else best


def test_racing_writers_lose_nothing_and_the_best_is_champion(tmp_path):
    race(str(tmp_path), 4)
    assert not list((tmp_path / "promotions/tiny").glob("*.new"))


def test_two_writers_at_once_on_s3_lose_nothing_and_the_best_is_champion(s3_server, monkeypatch):
    for name, value in s3_server.env().items():
        monkeypatch.setenv(name, value)
    race(f"s3://{s3_server.new_bucket()}/p", 2)


@given(st.lists(st.one_of(st.tuples(st.just("promote"), st.integers(0, 8)), st.just(("rollback", 0))), max_size=30))
def test_the_state_is_that_of_a_plain_stack(actions):
    entries, stack = [], []
    for action, number in actions:
        if action == "promote":
            top = stack[-1] if stack else -1
            if number in stack:
                continue
            promoted = number > top
            entries.append(Entry(len(entries), "id", "promote", str(number), "m", {}, {}, None, promoted, "", "n"))
            stack += [number] if promoted else []
        elif len(stack) > 1:
            entries.append(rollback_entry(entries, "n", name="tiny", target=None, expect=None))
            stack.pop()
    now = state(entries)
    assert [c.package for c in now.champions] == [str(n) for n in stack]
    assert (now.previous and now.previous.package) == (str(stack[-2]) if len(stack) > 1 else None)


def test_entries_are_plain_json(tmp_path):
    promote(PromotionLog(Folder(tmp_path), "tiny"), "a", 0.5)
    entry = json.loads((tmp_path / "promotions/tiny/00000000.json").read_text())
    assert {"seq", "id", "kind", "package", "model", "scores", "policy", "against", "promoted", "reason", "nonce"} <= set(entry)
