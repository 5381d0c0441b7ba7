"""report.html: what it says, that other people's text stays text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from components.data.benchmark import Question
from components.evaluation import report
from components.evaluation.curves import Curve
from components.evaluation.examples import choose
from components.evaluation.judging import judge
from components.evaluation.predict import MAX_PIXELS
from components.evaluation.scores import document, model_scores
from tests.components.evaluation.tsv import png

VOID = {"meta", "img", "br", "line", "polyline"}
LOSS = [(1.0, 2.5), (2.0, 1.5), (3.0, 1.0)]


class Page(HTMLParser):
    """The tags of a page, its text, and whether every tag that opens also closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.open and self.open[-1] == "style" else data + " "

    @property
    def words(self):
        return " ".join(self.text.split())


def questions(n=12, image=None, **more):
    image = image or png("red")
    return [
        Question("b.tsv: row", i, image, more.get("question", f"q {i}?"), more.get("answer", ["red", "blue"][i // 6]), f"kind{i % 3}", ["en", "zh"][i % 2])
        for i in range(n)
    ]


def render(folder: Path, asked=None, answers=None, candidates=("a", "b"), ruleset="exact-1", **more) -> str:
    asked = asked or questions()
    judged = judge(asked, answers or ["red"] * len(asked), ruleset)
    scored = {name: model_scores("d" * 64, {"shapes": judged, "shuffled": judged[:4]}, {"shapes": 1.0}) for name in ("soup", *candidates)}
    arguments = {
        "name": "micro",
        "scores": document(scored.pop("soup"), scored, {"shapes": 1.0}, ruleset),
        "judged": {"shapes": judged, "shuffled": judged[:4]},
        "controls": ["shuffled"],
        "trained": {name: Curve(LOSS, [], []) for name in candidates or ("instruct",)},
        "selection": {"method": "greedy", "members": ["a", "b"]},
    }
    report.write(folder / "report.html", **{**arguments, **more})
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_tells_the_scores_the_control_the_reading_and_the_model(tmp_path):
    page = Page(render(tmp_path))
    for said in (
        "accuracy of the soup 0.500", "over 12 questions of shapes", "The soup averages the weights of a, b (greedy", "a 3 steps", "n = 6",
        "shuffled control", "would score 0.500", "no curve of held-out rows", "6 of 6, drawn in turn", "Rule set exact-1 : Case-folded", "d" * 64,
    ):  # fmt: skip
        assert said in page.words


def test_it_needs_nothing_else_and_its_bytes_repeat(tmp_path):
    text = render(tmp_path)
    assert text == render(tmp_path)
    page = Page(text)
    assert {"script", "link", "iframe", "object", "form", "a"}.isdisjoint(tag for tag, _ in page.tags)
    assert not re.search(r"(src|href|url\()\W*(?!data:)(https?:)?//", text)
    assert all(attrs["src"].startswith("data:image/png;base64,") for tag, attrs in page.tags if tag == "img")
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}) in page.tags


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</bdi></main>", "\u202egnp.exe"])
def test_other_peoples_text_stays_text(tmp_path, evil):
    asked = [Question("b.tsv: row", i, png("red"), evil, f"{evil} {i % 2}", evil, evil[:8]) for i in range(4)]
    page = Page(render(tmp_path, asked, [f"{evil} 0"] * 4))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert {attrs["src"][:5] for tag, attrs in page.tags if tag == "img"} == {"data:"}
    assert evil in page.text
    assert "49" not in page.text


def test_without_candidates_and_with_one_language(tmp_path):
    asked = [q for q in questions() if q.language == "en"]
    page = Page(render(tmp_path, asked, candidates=(), selection={"method": "single", "members": ["instruct"]}))
    assert "The model" in page.text
    assert "By kind and language" not in page.text
    assert "mean of the" not in page.text


def test_a_file_where_all_is_right_or_all_is_wrong_has_one_gallery(tmp_path):
    assert "Wrong answers" not in render(tmp_path, questions(answer="red"))
    assert "Right answers" not in render(tmp_path, questions(answer="green"))


def test_an_answer_that_says_nothing_and_a_question_without_picture_are_shown(tmp_path):
    page = Page(render(tmp_path, [Question("b.tsv: row", 1, None, "why?", "so", "general", "en")], [" "]))
    assert "(nothing)" in page.text
    assert "no picture" in page.text
    assert "In 1 of 1 answers nothing could be read" in page.words


def test_examples_come_in_turn_from_kinds_and_languages_and_not_by_the_order_of_rows():
    asked = [Question("", i, None, f"q{i}", "red", "many" if i < 90 else "few", "en") for i in range(93)]
    judged = [("shapes", r) for r in judge(asked, ["blue"] * 93, "exact-1")]
    chosen = choose(judged, False, 8, MAX_PIXELS)
    assert [e.kind for e in chosen] == ["few", "many", "few", "many", "few", "many", "many", "many"]
    assert chosen == choose(judged[::-1], False, 8, MAX_PIXELS)
    assert choose(judged, True, 8, MAX_PIXELS) == []


def test_a_picture_comes_again_only_when_all_have_been_shown():
    pictures = [png(c) for c in ("red", "blue", "green")]
    asked = [Question("", i, pictures[i % 3], f"q{i}", "red", f"kind{i % 2}") for i in range(12)]
    chosen = choose([("shapes", r) for r in judge(asked, ["blue"] * 12, "exact-1")], False, 5, MAX_PIXELS)
    shown = [e.picture.address for e in chosen if e.picture]
    assert len(set(shown[:3])) == 3
    assert len(shown) == 5


def test_a_long_question_is_cut():
    (shown,) = choose([("b", judge([Question("", 1, None, "long " * 500, "red")], ["red"], "exact-1")[0])], True, 1, MAX_PIXELS)
    assert len(shown.question) == 240
    assert shown.question.endswith("…")
