"""Size of pictures, length of answers, language and blocklist: what each finds, and what it lets pass."""

import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.curation.blocklist import Blocklist, read_list
from components.curation.identified_language import IdentifiedLanguage, identify
from components.curation.image_size import ImageSize
from components.curation.text_length import TextLength
from components.curation.words import words
from components.errors import DataError
from components.recipe import curation
from components.step import Step
from tests.components.curation.corpora import picture, row
from tests.components.curation.judging import judge

STEP = Step("curate", {})


def reasons(judging, rows: list[dict]) -> list[str]:
    return [v["reason"] for v in judge(judging, rows)]


def size(**config) -> ImageSize:
    return ImageSize(curation.ImageSize(**config), STEP)


def length(**config) -> TextLength:
    return TextLength(curation.TextLength(**config), STEP)


def language(**config) -> IdentifiedLanguage:
    return IdentifiedLanguage(curation.IdentifiedLanguage(**config), STEP)


def blocklist(**config) -> Blocklist:
    return Blocklist(curation.Blocklist(**config), STEP)


def test_sizes_are_bounded_by_the_shortest_and_the_longest_side_and_their_ratio():
    rows = [row(f"{w}x{h}", images=[picture(1, size=(w, h))]) for w, h in ((32, 32), (31, 90), (90, 31), (200, 40), (201, 80), (160, 39))]
    assert reasons(size(min_side=32, max_side=200, max_aspect=4), rows) == ["", "image_small", "image_small", "image_long", "image_large", "image_long"]
    assert [v["score"] for v in judge(size(), rows)] == [32, 31, 31, 40, 80, 39]
    assert reasons(size(), rows) == [""] * 6


def test_every_picture_of_a_row_counts_and_rows_without_a_readable_one_pass():
    rows = [row("two", images=[picture(1, size=(50, 50)), picture(1, size=(5, 50))]), row("text"), row("broken", images=[b"broken"])]
    assert reasons(size(min_side=10), rows) == ["image_small", "", ""]
    assert [v["action"] for v in judge(size(min_side=10, action="tag"), rows)] == ["tag", "keep", "keep"]


def test_answers_are_measured_in_words_or_characters():
    rows = [row("one", answer=" red. "), row("four", answer="a large red circle"), row("chinese", answer="红色的圆形"), row("empty", answer=" ")]
    assert reasons(length(min=2, max=4), rows) == ["answer_short", "", "answer_long", "answer_short"]
    assert reasons(length(unit="characters", min=5, max=5), rows) == ["answer_short", "answer_long", "", "answer_short"]
    assert [v["score"] for v in judge(length(min=2), rows)] == [1, 4, 5, 0]


def test_the_shortest_and_the_longest_answer_of_a_row_decide():
    several = row("x", answer="one two three")
    several["messages"] += [{"role": "user", "content": "a very long question indeed " * 9}, {"role": "assistant", "content": "one"}]
    assert reasons(length(min=2), [several]) == ["answer_short"]
    assert reasons(length(max=2), [several]) == ["answer_long"]
    assert reasons(length(min=1, max=3), [several]) == [""]


GERMAN, ENGLISH, FRENCH = (
    "Auf dem Bild sind drei blaue Quadrate zu sehen.",
    "There are three blue squares in the picture.",
    "Un chat est assis sur la table de la cuisine.",
)


def test_answers_in_another_language_than_the_rows_own_are_found():
    rows = [row("en", answer=ENGLISH), row("de", answer=GERMAN), row("zh", answer="图中有三个蓝色的正方形。"), row("short", answer="red")]
    rows += [row("german", answer=GERMAN, language="de"), row("chinese", answer="红色", language="zh"), row("nobody", answer=FRENCH, language="und")]
    rows += [row("pt", answer="Há três quadrados azuis na imagem da cozinha.", language="pt-BR"), row("number", answer="3", language="en")]
    found = judge(language(), rows)
    assert [(r["id"], v["detail"]) for r, v in zip(rows, found, strict=True) if v["action"] == "drop"] == [("de", "de"), ("zh", "zh")]
    assert [v["score"] for v in found][-3::2] == [None, None]
    assert 0 < found[1]["score"] < 0.05 < 0.9 < found[0]["score"]


def test_named_languages_stay_whatever_the_label_and_a_higher_bound_finds_more():
    rows = [row("de", answer=GERMAN), row("fr", answer=FRENCH), row("en", answer=ENGLISH, language="zh")]
    assert reasons(language(languages=["en", "de"]), rows) == ["", "other_language", ""]
    short = [row("x", answer="photo of a dog")]
    assert (reasons(language(), short), reasons(language(min_percent=80), short)) == ([""], ["other_language"])


def test_scripts_of_one_language_need_no_model_and_text_without_letters_is_nobodys():
    assert identify("红色的圆形") == {"zh": 1.0}
    assert identify("빨간 원") == {"ko": 1.0}
    assert identify("3 + 4 = 7") == {}
    assert sum(identify(GERMAN).values()) == pytest.approx(1)
    russian = identify("На этой картинке мы видим три больших синих квадрата и один маленький красный круг")
    assert max(russian, key=lambda code: russian[code]) == "ru"
    assert identify(GERMAN) == identify(GERMAN)


def test_words_are_found_whole_in_any_case_and_phrases_across_white_space():
    listed = blocklist(words=["Casino", "click here", "广告"])
    rows = [
        row("1", answer="the CASINO!"),
        row("2", answer="casinos"),
        row("3", answer="Click\n here."),
        row("4", answer="here click"),
        row("5", answer="这是广告。"),
    ]
    assert reasons(listed, rows) == ["blocked_word", "", "blocked_word", "", "blocked_word"]
    assert judge(listed, rows)[2]["detail"] == "click here"


def test_questions_count_too():
    asked = row("x")
    asked["messages"][0]["content"] = "is this a casino?"
    assert reasons(blocklist(words=["casino"]), [asked]) == ["blocked_word"]


@pytest.mark.parametrize(
    ("text", "blocked"),
    [
        ("see https://spam.example/x", True),
        ("see HTTP://A.B.Spam.Example:8080/x", True),
        ("see www.spam.example.", True),
        ("see www.spam.example", True),
        ("http://me:pw@spam.example", True),
        ("https://notspam.example", False),
        ("https://spam.example.org", False),
        ("https://other.example/?u=spam.example", False),
        ("spam.example", False),
    ],
)
def test_hosts_are_found_in_addresses_with_all_below_them(text, blocked):
    assert reasons(blocklist(hosts=["spam.example"]), [row("x", answer=text)]) == ["blocked_host" if blocked else ""]


def test_paths_of_pictures_may_be_addresses():
    shown = row("x", images=[picture(1)])
    shown["images"][0]["path"] = "https://cdn.spam.example/1.png"
    assert reasons(blocklist(hosts=["spam.example"]), [shown]) == ["blocked_host"]


def test_patterns_are_searched_and_wrong_ones_refused():
    listed = blocklist(patterns=[r"\b\d{3}-\d{4}\b", r"(?i)as an ai"])
    assert reasons(listed, [row("1", answer="call 555-1234 now"), row("2", answer="As an AI model"), row("3", answer="5551234")]) == ["blocked_pattern"] * 2 + [
        ""
    ]
    with pytest.raises(ValidationError, match="is no regular expression"):
        curation.Blocklist(patterns=["("])


def test_lists_may_stand_in_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("\ufeff# bad words\n\ncasino\n  click here \n", encoding="utf-8")
    Path("hosts.txt").write_text("spam.example\n")
    listed = blocklist(words=["lottery"], words_file="words.txt", hosts_file="hosts.txt")
    rows = [row("1", answer="casino"), row("2", answer="lottery"), row("3", answer="http://spam.example"), row("4", answer="bad words")]
    assert reasons(listed, rows) == ["blocked_word", "blocked_word", "blocked_host", ""]
    Path("words.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"words\.txt: not a readable text file"):
        read_list(Path("words.txt"))


WORDS = st.text(st.sampled_from(string.ascii_letters + "é红色 ,.!\n"), min_size=1, max_size=12)


@given(listed=st.lists(WORDS, max_size=4), said=st.lists(WORDS, max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_phrase_is_found_exactly_where_its_words_follow_each_other(listed, said):
    text = " ".join(said)
    expected = any(p and f" {' '.join(p)} " in f" what  {' '.join(words(text))} " for p in map(words, listed))
    assert (reasons(blocklist(words=listed), [row("x", answer=text)]) == ["blocked_word"]) == expected


@given(sides=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=3), least=st.integers(1, 60), most=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_row_stays_exactly_when_all_its_pictures_are_within_the_bounds(sides, least, most):
    rows = [row("x", images=[picture(1, size=s) for s in sides])]
    stays = all(least <= min(s) and max(s) <= most for s in sides)
    assert (reasons(size(min_side=least, max_side=most), rows) == [""]) == stays


@pytest.mark.parametrize("make", [size, length, language, blocklist])
def test_sources_that_are_not_named_pass_and_an_empty_corpus_too(make):
    judging = make(sources=["a"])
    assert judging.looks_at("a")
    assert not judging.looks_at("b")
    assert make().looks_at("b")
    assert judge(judging, []) == []


def test_verdicts_do_not_depend_on_the_order_of_rows():
    rng = random.Random(0)
    rows = [row(f"{i}", answer=rng.choice([GERMAN, ENGLISH, "casino", "红色"]), images=[picture(i, size=(rng.randint(1, 40), 20))]) for i in range(40)]
    for judging in (size(min_side=10), length(min=2), language(), blocklist(words=["casino"])):
        there = dict(zip((r["id"] for r in rows), judge(judging, rows), strict=True))
        back = dict(zip((r["id"] for r in rows[::-1]), judge(judging, rows[::-1]), strict=True))
        assert there == back
