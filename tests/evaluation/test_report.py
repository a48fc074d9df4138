"""Markdown, terminal, page and pictures of a report."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from distill_dagster.domains.base import Task
from distill_dagster.evaluation import style
from distill_dagster.evaluation.page import page, quantity
from distill_dagster.evaluation.protocol import Options, examine
from distill_dagster.evaluation.report import gap_figure, loss_figure, score_figure, to_html, to_markdown, to_rich
from distill_dagster.evaluation.wording import AUTHORED_NOTICE, arm_order, arm_title, multiple, ratio
from evaluation import examination as made
from evaluation.examination import ROUTING

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "br", "line", "circle", "img", "hr"}


class Checker(HTMLParser):
    """Collects tags and attributes, and fails where a tag is not closed."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(html):
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def report():
    said = list(ROUTING.labels) * 75 + ["x"] * 600
    resources = {
        "student": {"parameters": 980_000, "bytes": 1_960_000, "seconds_per_item": 0.0042},
        "teacher": {"rank": 2},
    }
    return made.three(notice=AUTHORED_NOTICE, outputs={"student": said}, resources=resources)


def test_markdown(report):
    text = to_markdown(report)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {5}
    assert "| Teacher | 0.920 [0." in text and "| Gap closed | 0.70 [0." in text
    assert "not informative" in next(line for line in table if line.startswith("| Gap closed |"))
    assert f"> {AUTHORED_NOTICE}" in text
    assert "95% intervals over items only (1 seed), by subject" in text
    assert "- **Payment fields**: Not informative, because" in text
    assert text == to_markdown(report)


def test_markdown_of_hostile_titles_has_no_markup():
    task = Task("t", "text", "a|b <img src=x> [x](javascript:1) *b*", "")
    text = to_markdown(examine(made.items(task, 20), {"student": np.ones(20)}, Options(tasks=(task,), resamples=100)))
    assert "<img" not in text.replace("\\<img", "") and "](" not in text and "a\\|b" in text


def test_terminal_fits_eighty_columns(report):
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=80).print(to_rich(report))
    text = out.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert re.search(r"Student +0\.78 \[0\.7\d, 0\.8\d\] +0\.78 .* 0\.45 ", text)
    assert re.search(r"Gap closed +0\.70 \[.*\] +not informative +-?0\.0", text)
    assert "no evidence of legal, medical or financial competence" in " ".join(text.split())


def test_page_is_whole_and_says_everything(report, tmp_path):
    path = to_html(report, tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    checker = parsed(html)
    text = " ".join(" ".join(checker.text).split())
    for task in report.content["tasks"]:
        assert task["sentence"] in text
    for words in (
        "What was asked",
        "What this does not show",
        "Where the student errs",
        AUTHORED_NOTICE,
        "trained once",
        "980,000",
        "2.0 MB",
        "4.2 ms",
    ):
        assert words in text
    assert "Some items" not in text
    assert len(html) < 100_000 and page(report) == html


def test_page_runs_nothing_and_loads_nothing(report):
    html = page(report)
    checker = parsed(html)
    assert not checker.tags & {"script", "iframe", "object", "embed", "link", "img", "form", "base"}
    assert not {name for name in checker.attributes if name.startswith("on")} | checker.attributes & {
        "src",
        "href",
        "style",
    }
    css = re.search(r"<style>(.*?)</style>", html, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert css and policy
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    assert policy[1].startswith("default-src 'none'") and f"'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1] and "http" not in css[1] and "url(" not in css[1]


def test_everything_from_outside_is_escaped():
    task = Task("t", "label", EVIL, EVIL, (EVIL, "b"))
    listed = [{**item, "answer": EVIL} for item in made.items(task, 30)]
    options = Options(
        tasks=(task,),
        title=EVIL,
        notice=EVIL,
        resamples=100,
        outputs={"student": [EVIL] * 30},
        resources={EVIL: {EVIL: EVIL}},
    )
    report = examine(listed, {"student": np.ones(30), EVIL: np.ones(30)}, options)
    samples = [{"task": "t", "text": EVIL, "answer": EVIL, "outputs": {"student": EVIL, EVIL: EVIL}}]
    html = page(report, samples, show_records=True)
    checker = parsed(html)
    assert not checker.tags & {"script", "img"} and "Some items" in html
    assert html.count("&lt;script&gt;") >= 10


def test_record_text_needs_leave(report):
    samples = [
        {"task": "routing", "text": "SECRET " + "x" * 5000, "answer": "fee", "outputs": {"student": "refund"}}
    ] * 9
    assert "SECRET" not in page(report, samples)
    shown = page(report, samples, show_records=True)
    assert 0 < shown.count("SECRET") < 9 and "x" * 2000 not in shown


def test_many_classes_list_their_commonest_mistakes():
    labels = tuple(f"class_{i}" for i in range(30))
    task = Task("t", "label", "T", "", labels)
    said = [labels[(i % 30 + (i % 30 == 3)) % 30] for i in range(300)]
    html = page(
        examine(
            made.items(task, 300), {"student": np.ones(300)}, Options((task,), resamples=100, outputs={"student": said})
        )
    )
    assert '<td class="text">class_3</td><td class="text">class_4</td><td>10</td>' in html
    assert 'class="confusion"' not in html


@pytest.mark.parametrize("draw", [score_figure, gap_figure])
def test_pictures_are_small_and_the_same_every_time(report, draw):
    first = draw(report)
    assert first.startswith(b"\x89PNG") and 5_000 < len(first) < 100_000
    assert draw(report) == first
    assert b"Software" not in first and b"tEXt" not in first


@pytest.mark.parametrize("draw", [score_figure, gap_figure])
def test_pictures_of_odd_reports(draw):
    for shares in ({"student": 0.4}, {**made.GOOD, "student": 0.01, "teacher": 0.5, "linear_teacher": 0.1}):
        tasks = [Task(f"t{i}", "text", "A rather long title of a task " * 3, "") for i in range(5)]
        listed = [item for task in tasks for item in made.items(task, 40)]
        table = {name: np.tile(scores, 5) for name, scores in made.arms(shares, 40).items()}
        picture = draw(examine(listed, table, Options(tasks=tasks, resamples=100)))
        assert 5_000 < len(picture) < 100_000


def test_loss_picture():
    curves = {
        "student": [(i, 3 / (i + 1)) for i in range(3000)],
        "control_1": [(0, 2.0), (10, float("nan")), (20, 1.0)],
    }
    first = loss_figure(curves)
    assert first == loss_figure(curves) and 5_000 < len(first) < 100_000
    assert loss_figure({}).startswith(b"\x89PNG")
    assert loss_figure({"student": [(0, float("inf"))]}).startswith(b"\x89PNG")


def test_pictures_ignore_the_users_style(report):
    import matplotlib

    plain = gap_figure(report)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert gap_figure(report) == plain


def test_names_and_numbers():
    given = ["student", "control_4", "own_idea", "control_2", "teacher", "linear_gold", "linear_teacher"]
    wanted = ["linear_teacher", "teacher", "linear_gold", "control_2", "control_4", "own_idea", "student"]
    assert arm_order(given) == wanted
    assert multiple("control_16") == 16 and multiple("control_x") is None and multiple("student") is None
    assert arm_title("control_2") == "Control, 2× budget" and arm_title("own_idea") == "Own idea"
    assert (ratio(0.624), ratio(0.004), ratio(0), ratio(-0.0004)) == ("0.62", "0.004", "0.00", "-0.0004")
    assert len({style.colour(arm) for arm in made.GOOD}) == len(made.GOOD)
    assert (
        quantity("bytes", 2_500_000) == "2.5 MB" and quantity("seconds", 2.0) == "2.0 s" and quantity("x", None) == "–"
    )
    assert quantity("parameters", 4_200_000) == "4.20 M" and quantity("x", True) == "True"
