"""Progress display during training, for hand-made events."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fake_grids import make_record
from rich.console import Console
from small_grids import cell, expanded

from kdbench.cli import live_view
from kdbench.execution.events import Event
from kdbench.grid.run import Run
from kdbench.runs.records import Record
from tests.cli.test_status import beat


@pytest.fixture
def runs() -> list[Run]:
    expansion = expanded(methods=["kd", {"at": {"label": "[bold]at[/]"}}])
    return [cell(expansion, "kd").runs[0], cell(expansion, "[bold]at[/]").runs[0]]


def events(runs: list[Run]) -> Iterator[Event]:
    kd, at = runs
    both = (beat(kd), beat(at, acc=None, eta=100.0))
    yield Event(left=2)
    yield Event(beats=both, left=2)
    other = beat(replace(kd, seed=9), cohort="d", phase="pretrain", title="other")
    yield Event(beats=(*both, other), left=2, line="worker 7 died of [signal 9]")
    yield Event(ended=((kd, make_record(kd, 81.5)),), beats=both[1:], left=1)
    yield Event(ended=((at, Record(at.id, "diverged", "loss not finite")),), left=0)


def displayed(runs: list[Run], width: int = 80, **console: Any) -> str:
    file = io.StringIO()
    live_view.show(events(runs), runs, Console(file=file, width=width, **console))
    return file.getvalue()


def test_output_to_a_file_has_plain_lines(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    assert displayed(runs).splitlines() == [
        "worker 7 died of [signal 9]",
        "[1/2] r8w4 -> r8w3, seed 0, kd: done 81.50 %, 10.0 s",
        "[2/2] r8w4 -> r8w3, seed 0, [bold]at[/]: diverged: loss not finite",
    ]
    monkeypatch.setattr(live_view, "PLAIN_SECONDS", 0.0)
    lines = displayed(runs).splitlines()
    assert lines[0] == (
        "[0/2] r8w4 -> r8w3, seed 0: epoch 3/9, 1,234 images/s, 1.7 min to go: kd 81.2, [bold]at[/]"
    )
    other = "[0/2] other: pretraining, epoch 3/9, 1,234 images/s, 1.2 min to go: "
    assert any(line.startswith(other) for line in lines)


def test_terminal_shows_progress_bars(runs: list[Run]) -> None:
    text = displayed(runs, 140, force_terminal=True)
    for part in (
        "all runs", "0/2", "r8w4 -> r8w3, seed 0", "epoch 3/9", "kd 81",
        "worker 7 died of [signal 9]", "kd: done 81.50 %", "[bold]at[/]: diverged",
    ):  # fmt: skip
        assert part in text, part
    narrow = displayed(runs, 60, force_terminal=True)
    assert "…" in narrow and "kd: done" in narrow


def test_no_events_are_displayed_without_an_error() -> None:
    for terminal in (False, True):
        file = io.StringIO()
        live_view.show(iter([]), [], Console(file=file, force_terminal=terminal))
        assert "died" not in file.getvalue()
