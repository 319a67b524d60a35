import numpy as np
import pytest
from drawn_evidence import contrast, frame_of, luminance, make_evidence, texts, ticks
from fake_grids import PAIRS, ended
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from kdbench.report.plots import heatmap, pictures, style
from kdbench.runs.evidence import Evidence


def drawn(evidence: Evidence) -> Axes:
    return pictures.differences("T", frame_of(evidence), "kd").axes[0]


def text_at(axis: Axes, x: int, y: int) -> tuple[str, str, str]:
    [text] = [text for text in axis.texts if text.get_position() == (x + 0.5, y + 0.5)]
    return text.get_text(), str(text.get_fontweight()), str(text.get_color())


def test_every_cell_shows_its_difference() -> None:
    evidence = make_evidence(PAIRS)
    axis, frame = drawn(evidence), frame_of(evidence)
    methods, pairs = ticks(axis), [text.replace("\n", " ") for text in ticks(axis, "x")]
    assert methods == ["student", "at", "semckd"] and pairs == ["big → small", "big → tiny"]
    mesh = next(artist for artist in axis.collections if isinstance(artist, QuadMesh))
    for y, method in enumerate(methods):
        for x, pair in enumerate(pairs):
            [row] = frame[(frame["method"] == method) & (frame["pair"] == pair)].to_dict("records")
            assert np.asarray(mesh.get_array())[y, x] == pytest.approx(row["diff"])
            assert row["p_adj"] < 0.05
            difference = f"{row['diff']:+.2f}".replace("-", "−")
            mark = "▲" if row["diff"] > 0 else "▼"
            assert text_at(axis, x, y) == (f"{difference} {mark}", "bold", heatmap.DIFFERENT)


def test_difference_that_is_not_shown_is_grey() -> None:
    accuracies = {"at": (0.0, 2.0, -2.0), "kd": (0.5, -1.0, 1.0)}
    evidence = make_evidence(
        methods=("kd", "at"),
        accuracy=lambda run: 80 + accuracies.get(run.method, (0, 1, 2))[run.seed],
    )
    assert text_at(drawn(evidence), 0, 1) == ("−0.17", "normal", heatmap.OTHER)


def test_one_seed_has_no_significant_difference() -> None:
    axis = drawn(make_evidence(seeds=(0,)))
    assert {text.get_fontweight() for text in axis.texts} == {"normal"}


def test_cell_without_a_difference_is_hatched_and_shows_the_reason() -> None:
    evidence = make_evidence()
    records = dict(evidence.records)
    for run in evidence.cells[3].runs:
        records[run.id] = ended(run, "skipped", "no")
    # Finished, but with a different seed than the baseline.
    for run in (*evidence.cells[4].runs[:2], evidence.cells[2].runs[2]):
        del records[run.id]
    axis = drawn(Evidence(evidence.grid, evidence.cells, records, evidence.history))
    hatched = [p.get_xy() for p in axis.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert hatched == [(0, 1), (0, 2)]
    assert texts(axis)[1:] == ["skipped", "no common seed"]


def test_texts_are_readable_on_every_colour_and_signs_differ() -> None:
    colours = heatmap.colours()(np.linspace(0, 1, 101))[:, :3]
    for colour in colours:
        for text in (heatmap.DIFFERENT, heatmap.OTHER):
            assert contrast(luminance(tuple(colour)), luminance(text)) > 4.5
    # Orange and purple differ in blue, which the common colour blindnesses do not affect.
    assert colours[-1][2] - colours[0][2] > 0.25


def test_colour_scale_is_symmetric_and_ignores_one_outlier() -> None:
    evidence = make_evidence(
        methods=("kd", *(f"m{i}" for i in range(20))),
        accuracy=lambda run: 10.0 if run.method == "m3" else 80.0 + len(run.method) + run.seed,
    )
    axis = drawn(evidence)
    mesh = next(artist for artist in axis.collections if isinstance(artist, QuadMesh))
    low, high = mesh.get_clim()
    assert low == -high and high < 10


def test_pairs_beyond_the_limit_are_left_out_with_a_note() -> None:
    evidence = make_evidence(
        [("big", f"s{i}") for i in range(30)], ("kd", "at"), accuracy=lambda run: 80.0 + run.seed
    )
    figure = pictures.differences("T", frame_of(evidence), "kd")
    assert len(ticks(figure.axes[0], "x")) == style.FEW
    assert "first 6 of 30 pairs" in figure.get_suptitle().replace("\n", " ")
