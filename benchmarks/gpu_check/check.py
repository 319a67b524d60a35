"""The state of a check: device and sizes, the time that is left, lines, and values passed on."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.gpu_check.sizes import Sizes


@dataclass
class Outcome:
    """What a section did, for the table.

    Attributes:
        name: the section's name.
        headline: its result in a few words.
        seconds: time that it took.
        lines: number of lines that it wrote.
        failed: checks that failed.
        cut: parts that were left out because the time was over.
        error: the exception that ended it, or "".
    """

    name: str
    headline: str = ""
    seconds: float = 0.0
    lines: int = 0
    failed: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def state(self) -> str:
        """One word: ok, FAILED, ERROR or, if parts were left out, cut."""
        if self.error:
            return "ERROR"
        return "FAILED" if self.failed else "cut" if self.cut else "ok"


@dataclass
class Check:
    """A check in progress.

    Attributes:
        device: device to check.
        card: its name, written in every line.
        sizes: how large everything is.
        folder: for files.
        packed: folder of packed CIFAR-100, which may be absent.
        values: figures that later sections use.
        small: whether the sizes are small, so that times say nothing.
    """

    device: torch.device
    card: str
    sizes: Sizes
    folder: Path
    packed: Path
    small: bool
    values: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    outcome: Outcome = field(default_factory=lambda: Outcome(""))
    deadline: float = float("inf")
    file: TextIO | None = None

    @property
    def cuda(self) -> bool:
        """Whether a GPU is checked."""
        return self.device.type == "cuda"

    def line(self, **values: Any) -> None:
        """Write a line of JSON at once."""
        self.outcome.lines += 1
        row = {"section": self.outcome.name, **values, "card": self.card}
        row["at"] = round(time.monotonic() - self.began, 2)
        if self.file is not None:
            self.file.write(json.dumps(row, default=str) + "\n")
            self.file.flush()

    def expect(self, ok: bool, what: str, **values: Any) -> None:
        """Write a line with the outcome of a comparison; if it is False, the section fails."""
        if not ok:
            self.outcome.failed.append(what)
        self.line(what=what, ok=ok, **values)

    def skip(self, what: str, reason: str) -> None:
        """Write a line for a part that this device cannot do."""
        self.line(what=what, skipped=reason)

    def left(self) -> float:
        """Return the seconds that are left of this section's budget."""
        return self.deadline - time.monotonic()

    def has_time(self, what: str, seconds: float = 0.0) -> bool:
        """Return whether ``seconds`` are left; if not, note that ``what`` is left out."""
        if self.left() > seconds:
            return True
        if not self.outcome.cut:
            self.line(what=what, cut="the section's time is over")
        self.outcome.cut.append(what)
        return False

    def synchronize(self) -> None:
        """Wait for the device; raises if it is lost."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Return cached memory to the device."""
        import gc

        gc.collect()
        if self.cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()

    @contextmanager
    def section(self, name: str, deadline: float) -> Iterator[Outcome]:
        """Begin a section; it has to end at ``deadline``, in ``time.monotonic()``."""
        self.outcome, self.deadline = Outcome(name), deadline
        start = time.monotonic()
        try:
            yield self.outcome
        finally:
            self.outcome.seconds = time.monotonic() - start
