"""What GPU steps were predicted to take, and the targets, for the column resnet32x4 -> resnet8x4.

The model is of an H100: kernels one after another without gaps, each the largest of 2.5 us a
kernel, its bytes at 2.4 TB/s, and its operations at 180 (tf32) or 330 (bf16) TFLOP/s; plus or minus
40 %. On another card, read the ratios to it only.
"""

STEP_MS = {
    "batch": (0.08, 0.08),
    "teacher": (1.24, 0.66),
    "kd": (1.13, 0.67),
    "fitnets": (1.35, 0.79),
    "at": (1.47, 0.96),
    "sp": (1.22, 0.77),
    "cc": (1.19, 0.74),
    "vid": (1.77, 1.09),
    "rkd": (1.47, 1.01),
    "pkt": (1.31, 0.86),
    "ab": (1.15, 0.69),
    "fsp": (1.15, 0.69),
    "ft": (1.49, 0.93),
    "nst": (1.88, 1.31),
    "crd": (2.07, 1.56),
    "irg": (1.32, 0.86),
    "hkd": (2.96, 2.43),
    "semckd": (6.00, 3.66),
}
"""Part of a step -> milliseconds in tf32 and bf16, by the model."""
COHORT_MS = {
    ("eager", 1): ((30, 42), (33, 48)),
    ("graph", 1): ((28, 33), (18, 22)),
    ("graph", 4): ((18, 23), (10, 13)),
}
"""Way and streams -> least and most milliseconds of a cohort's step in tf32 and bf16."""
TARGET_MS = {"tf32": 23.0, "bf16": 13.0}
"""Precision -> target for a cohort's step in milliseconds."""
TARGET_RATIO = {"tf32": 5.0, "bf16": 9.0}
"""Precision -> target for the speed-up over the plain loop."""
COLUMN_STEPS = 781 * 240


def predicted(part: str, precision: str) -> float | None:
    """Return the modelled milliseconds of a part of a step; None if there is no prediction."""
    if part not in STEP_MS or precision not in TARGET_MS:
        return None
    return STEP_MS[part][precision == "bf16"]


def predicted_cohort(way: str, streams: int, precision: str) -> tuple[float, float] | None:
    """Return the expected range of a cohort's step in milliseconds; None if there is none."""
    if (way, streams) not in COHORT_MS or precision not in TARGET_MS:
        return None
    return COHORT_MS[way, streams][precision == "bf16"]


def off(ms: float, expected: float | None) -> float | None:
    """Return by how much a time differs from a prediction: 0.5 if it takes half as long again."""
    return None if expected is None else round(ms / expected - 1, 3)
