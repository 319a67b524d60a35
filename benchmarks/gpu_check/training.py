"""Whole trainings by the engine, and a digest of what each learned."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.sizes import Sizes
from benchmarks.gpu_check.ways import Way, graphs_on_a_cpu
from kdbench.data.dataset import LoadedData
from kdbench.runs import records
from kdbench.training import device as devices
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.context import TrainingContext
from kdbench.training.teacher import LoadedTeacher

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class School:
    """What a small training needs: data, teacher and pair, on one device."""

    check: Check
    data: LoadedData
    teacher: LoadedTeacher
    pair: tuple[str, str]
    batch: int
    epochs: int = 2

    def trained(
        self,
        methods: Iterable[str],
        way: Way,
        *,
        alone: bool = False,
        stops: tuple[int, ...] = (),
        enough: Callable[[str], bool] = lambda name: True,
    ) -> dict[str, str]:
        """Train methods to their end, and return a digest of each, or why it has none.

        Args:
            methods: names of the methods.
            way: how steps are run.
            alone: train each by itself instead of with the others.
            stops: numbers of steps after which the training is stopped and resumed.
            enough: called before each cohort with its methods; False leaves it out.
        """
        digests: dict[str, str] = {}
        for group in self.groups(methods, alone):
            if enough(", ".join(group)):
                digests |= self._cohort(group, way, stops)
        return digests

    def groups(self, methods: Iterable[str], alone: bool) -> list[list[str]]:
        """Return the methods that train together; those without teacher are a cohort of their own.

        Args:
            methods: names of the methods.
            alone: one method in each group.
        """
        names = list(methods)
        if alone:
            return [[name] for name in names]
        guided = [name for name in names if subjects.needs_teacher(name)]
        return [group for group in (guided, [x for x in names if x not in guided]) if group]

    def _cohort(self, methods: list[str], way: Way, stops: tuple[int, ...]) -> dict[str, str]:
        # A folder in memory, where there is one: this measures no disk.
        memory = Path("/dev/shm")
        folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        try:
            return self._trained_in(folder, methods, way, stops)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _trained_in(
        self, folder: Path, methods: list[str], way: Way, stops: tuple[int, ...]
    ) -> dict[str, str]:
        runs = {
            name: subjects.run(
                name,
                self.pair,
                precision=way.precision,
                epochs=self.epochs,
                batch=self.batch,
                pretrain=1,
            )
            for name in methods
        }
        chosen = list(runs.values())
        teacher = self.teacher if chosen[0].teacher else None
        with graphs_on_a_cpu(self.check.device):
            for steps in (*stops, 0):
                context = TrainingContext(
                    folder,
                    self.check.device,
                    checkpoint_seconds=1e9,
                    beat_seconds=1e9,
                    graphs=way.graphs,
                    streams=way.streams or 1,
                    stop=after(steps) if steps else lambda: False,
                )
                try:
                    Cohort(chosen, teacher, self.data, context).train()
                except Stopped:
                    continue
        return {name: digest(folder, run.id) for name, run in runs.items()}


def after(steps: int) -> Callable[[], bool]:
    """Return a ``TrainingContext.stop`` that asks to stop at its n-th call."""
    left = [steps]

    def stop() -> bool:
        left[0] -= 1
        return left[0] <= 0

    return stop


def digest(folder: Path, run_id: str) -> str:
    """Return the first digits of the sha256 of a run's weights and curve, or why it has none."""
    record = records.read(folder, run_id)
    if record is None:
        return "no record"
    if record.status != "done" or record.result is None:
        return f"{record.status}: {record.reason}"
    lines = (records.folder(folder, run_id) / "history.csv").read_text().splitlines()
    curve = "\n".join(line.rpartition(",")[0] for line in lines)  # without seconds
    return hashlib.sha256(f"{record.result.weights}\n{curve}".encode()).hexdigest()[:12]


def school(check: Check) -> School:
    """Return the school of the small comparison of bits."""
    sizes = check.sizes
    data = subjects.noise_images(check, sizes.small_steps * sizes.small_batch)
    loaded = subjects.teacher(data, sizes.small_pair[0], check.device)
    return School(check, data, loaded, sizes.small_pair, sizes.small_batch)


class OtherProcess:
    """The same training in another process, which runs beside this one."""

    def __init__(self, check: Check, methods: Iterable[str], way: Way) -> None:
        """Start it."""
        self._file = check.folder / "other-process.json"
        self._file.unlink(missing_ok=True)
        wanted = {
            "device": str(check.device),
            "small": check.small,
            "methods": list(methods),
            "way": [way.precision, way.streams],
            "out": str(self._file.resolve()),
        }
        self._log = (check.folder / "other-process.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_check.training", json.dumps(wanted)],
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def digests(self, seconds: float) -> dict[str, str]:
        """Wait for its digests; none if they take longer than ``seconds``.

        Raises:
            RuntimeError: the process has failed.
        """
        try:
            code = self._process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            return {}
        finally:
            self.end()
        if code:
            raise RuntimeError(f"the other process ended with code {code}: {self._log.name}")
        found: dict[str, str] = json.loads(self._file.read_text())
        return found

    def end(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


def main(text: str) -> None:
    """Train as ``OtherProcess`` asks, and write the digests."""
    import torch

    from benchmarks.gpu_check import sizes

    wanted = json.loads(text)
    device = torch.device(wanted["device"])
    if device.type == "cpu":
        torch.set_num_threads(1)
        sys.path[:0] = [str(ROOT / "tests" / "support")]
    devices.prepare(device)
    chosen: Sizes = sizes.small() if wanted["small"] else sizes.real()
    check = Check(device, "", chosen, Path(), Path(), wanted["small"])
    digests = school(check).trained(wanted["methods"], Way(*wanted["way"]))
    Path(wanted["out"]).write_text(json.dumps(digests))


if __name__ == "__main__":
    main(sys.argv[1])
