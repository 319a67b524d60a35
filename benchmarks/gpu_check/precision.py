"""One step's loss and gradient in each precision, compared with float64 on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.method import Batch
from kdbench.training import device as devices
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

METHODS = ("kd", "at", "rkd", "nst", "crd", "semckd")
BOUNDS = {"fp32": (1e-5, 0.9999), "tf32": (5e-3, 0.999), "bf16": (3e-2, 0.98)}
"""Precision -> largest relative error of the loss, and least cosine of the gradients."""


def run(check: Check) -> None:
    """Compare the loss and the student's gradient of each method in each precision."""
    sizes, cpu = check.sizes, torch.device("cpu")
    # CRD's banks need some thousand images; more only take longer in float64.
    data = subjects.noise_images(check, min(sizes.images, 5_000))
    on_cpu = subjects.on(data, cpu)
    exact_teacher = subjects.teacher(on_cpu, sizes.pair[0], cpu)
    exact_teacher.fast.double()
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    batch = sizes.reference_batch
    images, labels, index = next(
        train_batches(on_cpu, batch_size=batch, seed=0, epoch=1, crop_pad=4, flip=True)
    )
    errors: dict[str, list[tuple[float, float]]] = {}
    for method in METHODS:
        if not check.has_time(method):
            break
        run = subjects.run(method, sizes.pair, batch=batch)
        exact = subjects.learner(run, on_cpu, exact_teacher, cpu)
        exact.student.double()
        exact.methods.double()
        drawn = negatives(exact, Batch(images, labels, index))
        reference = evaluated(
            exact, exact_teacher, Batch(images.double(), labels, index), "fp32", drawn
        )
        there = Batch(images.to(check.device), labels.to(check.device), index.to(check.device))
        for precision, (most, least) in BOUNDS.items():
            if precision == "tf32" and not check.cuda:
                check.skip(f"{method} in tf32", "only GPUs have it")
                continue
            loss, gradient = on_device(check, method, precision, data, loaded, there, drawn)
            error = abs(loss - reference[0]) / abs(reference[0])
            cosine = float(torch.cosine_similarity(gradient, reference[1], dim=0))
            errors.setdefault(precision, []).append((error, cosine))
            check.expect(
                error <= most and cosine >= least,
                f"{method} in {precision}",
                loss_error=error,
                cosine=cosine,
                most=most,
                least=least,
            )
    devices.prepare(check.device)
    check.outcome.headline = "; ".join(
        f"{name}: {max(e for e, _ in pairs):.1e}, {min(c for _, c in pairs):.5f}"
        for name, pairs in errors.items()
    )


def on_device(
    check: Check,
    method: str,
    precision: str,
    data: LoadedData,
    loaded: LoadedTeacher,
    batch: Batch,
    drawn: tuple[Tensor, ...] | None,
) -> tuple[float, Tensor]:
    """Return ``evaluated`` for a new learner on the device."""
    devices.prepare(check.device, precision)
    run = subjects.run(
        method, check.sizes.pair, precision=precision, batch=check.sizes.reference_batch
    )
    return evaluated(
        subjects.learner(run, data, loaded, check.device), loaded, batch, precision, drawn
    )


def evaluated(
    learner: Learner,
    loaded: LoadedTeacher,
    batch: Batch,
    precision: str,
    drawn: tuple[Tensor, ...] | None,
) -> tuple[float, Tensor]:
    """Return a step's loss and the student's gradient, [P], in float64 on the CPU.

    Args:
        learner: a learner at its first step.
        loaded: its teacher.
        batch: images, labels and positions.
        precision: "bf16" computes as a run in bf16 does.
        drawn: CRD's positives and negatives, because each device draws others.
    """
    learner.phases.set_modes("train")
    with (
        drawing(learner, drawn),
        torch.autocast(learner.device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        t = loaded(batch.images)
        loss = learner._loss(learner.forward(batch.images), t, batch).total
    loss.backward()
    gradients = [p.grad for p in learner.student.parameters() if p.grad is not None]
    return loss.item(), torch.cat([g.double().cpu().contiguous().flatten() for g in gradients])


def negatives(learner: Learner, batch: Batch) -> tuple[Tensor, ...] | None:
    """Return what CRD draws for a batch; None for other methods."""
    draw = getattr(learner.terms[0], "draw", None)
    return tuple(draw(batch)) if draw else None


@contextmanager
def drawing(learner: Learner, drawn: tuple[Tensor, ...] | None) -> Iterator[None]:
    """Let a method use these samples instead of drawing."""
    if drawn is None:
        yield
        return
    there = tuple(x.to(learner.device) for x in drawn)
    own: dict[str, Any] = vars(learner.terms[0])
    own["draw"] = lambda batch: there
    try:
        yield
    finally:
        del own["draw"]
