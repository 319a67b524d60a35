import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from kdbench.report.plots.labels import Box, place

INSIDE = (0.0, 0.0, 400.0, 300.0)
POINT = st.tuples(st.floats(20, 380), st.floats(20, 280))


def boxes(points: list[tuple[float, float]], wide: float = 30, tall: float = 8) -> list[Box]:
    corners = place(points, [(wide, tall)] * len(points), INSIDE)
    return [(x, y, x + wide, y + tall) for x, y in corners]


def overlap(first: Box, second: Box) -> float:
    wide = min(first[2], second[2]) - max(first[0], second[0])
    tall = min(first[3], second[3]) - max(first[1], second[1])
    return max(wide, 0) * max(tall, 0)


@given(st.lists(POINT, max_size=12))
@example([(20, 20), (20, 40), (20, 58), (32, 56), (55, 58), (58, 60)])
def test_names_do_not_overlap_and_stay_in_the_panel(
    points: list[tuple[float, float]],
) -> None:
    placed = boxes(points)
    assert len(placed) == len(points)
    for first, second in itertools.combinations(placed, 2):
        assert overlap(first, second) < 1
    for left, bottom, right, top in placed:
        assert left > -1 and bottom > -1 and right < 401 and top < 301
    assert placed == boxes(points)


@given(POINT)
def test_single_name_is_next_to_its_point(point: tuple[float, float]) -> None:
    [(left, bottom, right, top)] = boxes([point])
    x, y = point
    assert max(left - x, x - right, bottom - y, y - top) < 6
    assert not (left < x < right and bottom < y < top)


def test_names_avoid_lines() -> None:
    free = boxes([(200, 150)])[0]
    # The line occupies everything to the right.
    taken = place([(200, 150)], [(30, 8)], INSIDE, lines=[(200, 100, 400, 200)])[0]
    assert free[0] > 200 and taken[0] + 30 < 200.1
