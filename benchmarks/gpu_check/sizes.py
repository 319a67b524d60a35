"""How large the networks, data sets and numbers of steps of a check are."""

from dataclasses import dataclass

from benchmarks.plain.losses import LOSSES
from kdbench.registry import lookup

ALONE = "student"
"""Name of a run without method and teacher."""


def all_methods() -> tuple[str, ...]:
    """Return the names of all methods, and of a run without one."""
    return (*lookup.names(), ALONE)


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        pair: teacher and student whose steps are timed.
        small_pair: teacher and student of the tests that train every method.
        classes: number of classes, K.
        images: number of training images that steps are timed with.
        batch: B, of timed steps.
        column: methods that are timed together.
        methods: methods whose bits are compared.
        golden: golden cases of each folder; 0: all.
        streams: numbers of streams that are compared; the first is 1.
        rounds: rounds of a timing; all ways take turns in each.
        round_steps: steps in a round.
        plain_steps: steps of the plain loop, the first of which only warm up.
        plain_warm: number of those that warm up.
        real_steps: steps of the comparison of bits on ``pair``.
        small_steps: steps of an epoch of the comparison of bits on ``small_pair``.
        small_batch: B of it.
        stop: step after which a training is stopped and resumed.
        repeat: calls of an operation in one replay, when operations are timed.
        product: rows and columns of the matrix product that gives the ceiling.
        copied: bytes of the copy that gives the ceiling.
        batches: number of batches that are compared with the CPU's.
        reference_batch: B of the comparison with float64.
        engine_steps: steps of an epoch of the whole engine.
    """

    pair: tuple[str, str] = ("resnet32x4", "resnet8x4")
    small_pair: tuple[str, str] = ("r14w8", "r8w8")
    classes: int = 100
    images: int = 50_000
    batch: int = 64
    column: tuple[str, ...] = tuple(LOSSES)
    methods: tuple[str, ...] = ()
    golden: int = 0
    streams: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 3
    round_steps: int = 20
    plain_steps: int = 50
    plain_warm: int = 10
    real_steps: int = 40
    small_steps: int = 20
    small_batch: int = 16
    stop: int = 13
    repeat: int = 50
    product: int = 8192
    copied: int = 2**30
    batches: int = 20
    reference_batch: int = 32
    engine_steps: int = 100


def real() -> Sizes:
    """Return the sizes of a check of a GPU."""
    return Sizes(methods=all_methods())


def small() -> Sizes:
    """Return sizes with which every section's code runs on a CPU within a minute in all."""
    return Sizes(
        pair=("r14w4", "r8w4"),
        small_pair=("r8w4", "r8w3"),
        classes=10,
        images=640,
        batch=16,
        column=("kd", "at", "semckd", "crd"),
        methods=("kd", "at", "crd", "ft", "dkd", "label_smoothing", ALONE),
        golden=1,
        streams=(1, 2),
        rounds=2,
        round_steps=3,
        plain_steps=3,
        plain_warm=1,
        real_steps=4,
        small_steps=3,
        small_batch=8,
        stop=4,
        repeat=2,
        product=128,
        copied=2**20,
        batches=3,
        reference_batch=16,
        engine_steps=4,
    )
