"""The whole engine on the card: training, evaluation, checkpoints and records."""

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.ways import Way, graphs_on_a_cpu
from kdbench.data.dataset import LoadedData
from kdbench.runs import records
from kdbench.training import checkpoint
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.context import TrainingContext
from kdbench.training.learner_state import state_of

EPOCHS = 2


def run(check: Check) -> None:
    """Train the column for two epochs, and look at the records."""
    sizes = check.sizes
    if not check.has_time("training"):
        return
    precision = "bf16"
    way = Way(precision, sizes.streams[-2] if len(sizes.streams) > 2 else sizes.streams[-1])
    data = images(check, sizes.engine_steps * sizes.batch)
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    runs = [
        subjects.run(name, sizes.pair, precision=precision, epochs=EPOCHS, batch=sizes.batch)
        for name in sizes.column
    ]
    with tempfile.TemporaryDirectory() as name:
        folder, lines = Path(name), list[str]()
        context = TrainingContext(
            folder,
            check.device,
            checkpoint_seconds=1e9,
            graphs=way.graphs,
            streams=way.streams,
            stop=lambda: check.left() < -5,
            report=lambda beats, line: lines.append(line) if line else None,
        )
        cohort = Cohort(runs, loaded, data, context)
        began = time.perf_counter()
        try:
            with graphs_on_a_cpu(check.device):
                cohort.train()
        except Stopped:
            check.has_time("the end of training", math.inf)
            return
        check.synchronize()
        seconds = time.perf_counter() - began
        ended = records.load(folder, (run.id for run in runs))
        for run in runs:
            record = ended[run.id]
            check.expect(
                record.status == "done",
                f"{run.method} has a record",
                status=record.status,
                reason=record.reason,
                trace=record.traceback[-2000:],
                environment=record.environment if run is runs[0] else {},
                step_ms=record.cost.step_ms if record.cost else None,
                seconds=record.cost.seconds if record.cost else None,
            )
        trained = len(runs) * EPOCHS * len(data.train_labels)
        saved = checkpoint_ms(check, data, folder)
    check.line(
        what="engine",
        seconds=round(seconds, 2),
        images_per_s=round(trained / seconds),
        images=len(data.train_labels),
        source=data.title,
        lines=lines[:20],
        **way.values,
    )
    done = sum(record.status == "done" for record in ended.values())
    check.outcome.headline = (
        f"{done} of {len(runs)} records done, {trained / seconds:,.0f} images/s, "
        f"checkpoint {saved:.0f} ms"
    )


def images(check: Check, count: int) -> LoadedData:
    """Return so many images of packed CIFAR-100 if all of it is there, otherwise noise."""
    if not (check.packed / "cifar100.json").exists():
        return subjects.noise_images(check, count)
    from benchmarks.packed import load_packed

    try:
        data = load_packed(check.packed)
    except Exception as error:
        check.skip("packed CIFAR-100", " ".join(str(error).split()))
        return subjects.noise_images(check, count)
    every = range(0, len(data.train_labels), max(1, len(data.train_labels) // count))[:count]
    some = replace(
        data, train_images=data.train_images[every], train_labels=data.train_labels[every]
    )
    return subjects.on(some, check.device)


def checkpoint_ms(check: Check, data: LoadedData, folder: Path) -> float:
    """Return the milliseconds of a checkpoint of one learner."""
    run = subjects.run("student", check.sizes.pair, batch=check.sizes.batch)
    learner = subjects.learner(run, data, None, check.device)
    target = folder / "checkpoint"
    target.mkdir()
    times = []
    for _ in range(3):
        check.synchronize()
        began = time.perf_counter()
        checkpoint.save(target, state_of(learner))
        times.append(1e3 * (time.perf_counter() - began))
    size = (target / checkpoint.NAME).stat().st_size
    ms = sorted(times)[1]
    check.line(what="checkpoint of one learner", ms=round(ms, 1), mb=round(size / 1e6, 1))
    return ms
