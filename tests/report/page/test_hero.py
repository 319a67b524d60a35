import math
import re

import pytest
from given_accuracies import statistics, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.grid.grid import Report
from kdbench.grid.settings import Dataset
from kdbench.report import numbers
from kdbench.report.page import html
from kdbench.report.page.hero import Hero, HeroRow, hero
from kdbench.report.text.decision_sentences import cost, sure, which
from kdbench.stats.aggregate import Aggregate
from tests.report.text.test_decision_sentences import shifted

QUICK = statistics(**vector("quick"))


def drawn(aggregate: Aggregate) -> tuple[Hero, dict[str, HeroRow]]:
    """Return the picture and its rows by name."""
    picture = hero(aggregate)
    assert picture is not None
    return picture, {row.name: row for row in picture.rows}


def test_rows_are_sorted_by_mean_and_show_the_decision() -> None:
    picture, rows = drawn(QUICK)
    means = [QUICK.decision.over.means[row.name] for row in picture.rows]
    assert means == sorted(means, reverse=True)
    assert list(rows)[:4] == ["reviewkd", "simkd", "ab", "nst"] and len(rows) == 27
    assert picture.title == "Test accuracy over kd, mean of 2 pairs, 95 % intervals"
    for name, row in rows.items():
        if name != "kd":
            contrast = QUICK.decision.over.contrasts[name, "kd"]
            assert row.interval == numbers.interval(contrast.low, contrast.high)
            assert row.value == numbers.signed(contrast.diff)
            assert (row.direction != "") == contrast.told
    assert [name for name, row in rows.items() if row.mark == "●"] == ["reviewkd"]
    assert [name for name, row in rows.items() if row.mark == "?"] == ["ab"]
    assert [row.name for row in picture.rows if row.best] == ["reviewkd"]
    assert rows["ab"].lines == (
        "ab",
        "52.47 % test accuracy, mean of 2 pairs",
        "+3.40 [+1.17, +5.63] points over kd, adjusted p = 0.45",
        "rank 1 to 26 of 27, at most 4.97 points behind the best",
        "cannot be placed: runs differ too much on big → small1",
        "1.24 × the training time of kd",
    )
    assert picture.marks == (
        "● may be the best",
        "? cannot be placed",
        "▲▼ better or worse than kd among all 27 rows",
    )


def test_no_mark_if_more_than_half_may_be_the_best() -> None:
    _, rows = drawn(statistics(**vector("demo")))
    assert {row.mark for row in rows.values()} == {"", "?"}
    assert rows["sp"].best and "may be the best" in rows["sp"].lines
    assert rows["dist"].cut_low and not rows["sp"].cut_low


def test_positions_follow_the_values() -> None:
    picture, rows = drawn(QUICK)
    zero = next(line.x for line in picture.references if line.kind == "zero")
    for row in picture.rows:
        assert row.x is not None and 0 < row.x < 100
        value = 0.0 if row.name == "kd" else QUICK.decision.over.contrasts[row.name, "kd"].diff
        assert math.copysign(1, row.x - zero) == math.copysign(1, value) or abs(value) < 0.05
        assert row.low is None or row.low <= row.x <= (row.high or 100)
    student = next(line for line in picture.references if line.kind == "student")
    assert student.x == rows["student"].x


def test_teacher_far_away_is_named_at_the_edge() -> None:
    picture, _ = drawn(statistics([shifted(student=60, kd=70, at=71)]))
    teacher = next(line for line in picture.references if line.kind == "teacher")
    assert (teacher.label, teacher.outside, teacher.x) == ("teacher +25.0", "right", 100.0)
    picture, _ = drawn(statistics([shifted(student=85, kd=90, at=92)]))
    teacher = next(line for line in picture.references if line.kind == "teacher")
    assert (teacher.label, teacher.outside) == ("teacher", "") and teacher.x < 100


def test_one_seed_has_dots_without_intervals() -> None:
    picture, rows = drawn(statistics(**vector("one_seed")))
    assert not picture.intervals and picture.title == "Test accuracy over kd, big → small0"
    assert all(row.low is None and row.mark == row.direction == "" for row in rows.values())


def test_row_that_lacks_a_pair_comes_last() -> None:
    picture, rows = drawn(statistics(**vector("skipped_cell")))
    assert [row.name for row in picture.rows if row.partial] == ["vid"]
    assert picture.rows[-1].name == "vid" and "○ not on every pair" in picture.marks
    assert any(line.endswith("on 1 of 2 pairs") for line in rows["vid"].lines)


def test_without_a_baseline_the_student_is_zero() -> None:
    picture, rows = drawn(statistics([shifted(student=60, at=75, sp=65)]))
    assert picture.unit == "points over student" and rows["student"].value == "0"
    assert all(row.direction == "" for row in rows.values())
    picture, rows = drawn(statistics([shifted(at=75, sp=65)], report=Report(baseline="none")))
    assert (picture.unit, rows["at"].value) == ("percent", "75.03")
    assert not any(line.kind == "zero" for line in picture.references)


def test_sweep_shows_held_out_accuracy_in_the_grids_order_without_marks() -> None:
    given = statistics(
        [shifted(student=60, kd=70, at=65, sp=75)],
        held_out=True,
        sweep={"at.beta": (1, 10)},
        dataset=Dataset(name="digits", validation=0.2),
    )
    picture, rows = drawn(given)
    assert picture.title == "Held-out accuracy, big → small0"
    assert list(rows) == ["student", "kd", "at", "sp"]
    assert all(row.mark == row.direction == row.time == "" for row in rows.values())
    assert not any(row.best for row in rows.values())
    text = html.render(given)
    assert "Choose on held-out images:" in text and "Which method would you use?" not in text
    assert "<code>" not in text and "kdbench select --grid experiments/fake.yaml</pre>" in text


def test_nothing_finished_has_no_picture() -> None:
    assert hero(statistics([{}], methods=["kd"])) is None


def test_single_row_and_equal_values_are_drawn() -> None:
    for rows in ({"kd": {0: 70.0}}, {"kd": {0: 70.0, 1: 70.0}, "at": {0: 70.0, 1: 70.0}}):
        picture, _ = drawn(statistics([rows]))
        assert all(row.x is not None and math.isfinite(row.x) for row in picture.rows)
        assert picture.ticks


def test_long_name_is_shortened_but_complete_in_the_label() -> None:
    name = "a_method_with_a_very_long_name"
    given = statistics([{"kd": {0: 70.0, 1: 71.0}, name: {0: 72.0, 1: 73.0}}])
    _, rows = drawn(given)
    assert rows[name].label == "a_method_with_a_ver…" and rows[name].text.startswith(f"{name};")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["student", "kd", "at", "sp", "cc"]),
            st.dictionaries(st.integers(0, 3), st.floats(0, 100), max_size=4),
            max_size=5,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_grid_gives_a_picture_or_a_sentence(pairs: list[dict[str, dict[int, float]]]) -> None:
    given = statistics(pairs, methods=["kd"])
    text = " ".join([*which(given), *sure(given), *cost(given)])
    assert not re.search(r"\b(nan|inf)\b|–", text)
    picture = hero(given)
    if picture is None:
        assert not given.decision.over.means and which(given)
        return
    assert not re.search(r"\b(nan|inf)\b", " ".join(row.text for row in picture.rows))
    for row in picture.rows:
        for place in (row.x, row.low, row.high):
            assert place is None or 0 <= place <= 100
    assert len(picture.ticks) < 15


@pytest.mark.parametrize("opens", [True, False])
def test_rows_are_links_without_scripts(opens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not opens:
        monkeypatch.setattr(html, "CELLS", 1)
    text = html.render(QUICK)
    start = text.index('<svg class="hero')
    svg = text[start : text.index("</figure>", start)]
    assert svg.count('href="#table"') == svg.count("<title>") == 27
    assert svg.count("data-c=") == (27 if opens else 0)
    assert "style=" not in svg
