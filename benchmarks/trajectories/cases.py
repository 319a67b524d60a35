"""The methods of the authors' repositories, and the kdbench rows that claim to equal them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NEGATIVES = 64
"""Negatives per image in CRD. The authors' 16,384 would only take memory."""


@dataclass(frozen=True)
class Repository:
    """A repository of the authors of some methods.

    Attributes:
        name: of its folder.
        main: "train_student.py" or "tools/train.py".
        preset: kdbench's protocol that follows it.
        pair: teacher and student to compare on, if none is given; the repository must have both.
        flags: arguments of every command, in which ``{epochs}``, ``{batch}``, ``{teacher_file}``,
            ``{student}`` are replaced.
    """

    name: str
    main: str
    preset: str
    pair: tuple[str, str]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A method of a repository, and the kdbench row that claims to equal it.

    Attributes:
        repository: where the authors' code is.
        theirs: the method's name there: the value of ``--distill``, or a configuration file.
        row: the methods of kdbench's row.
        flags: the authors' further arguments, as in their scripts.
        options: of kdbench's row, where the protocol has another value than ``flags``.
        modules: patterns of the names of the method's tensors in kdbench that the authors have,
            in the order in which the authors build them; all by default.
        unmatched: pattern of the names of the authors' tensors that kdbench does not have.
        unused: patterns of the names of the student's tensors that are not compared, each with the
            reason.
        signs: give the singular vectors of the authors' decomposition kdbench's signs.
        departs: why kdbench computes something else on purpose; "" if it claims to be equal.
    """

    repository: Repository
    theirs: str
    row: str
    flags: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ("",)
    unmatched: str = ""
    unused: Mapping[str, str] = field(default_factory=dict)
    signs: bool = False
    departs: str = ""


TRAIN_STUDENT = (
    *("--model_s", "{student}", "--epochs", "{epochs}", "--batch_size", "{batch}"),
    *("--lr_decay_epochs", "1", "--num_workers", "0"),
)
REPDISTILLER = Repository(
    "RepDistiller",
    "train_student.py",
    "crd",
    ("resnet14", "resnet8"),
    (*TRAIN_STUDENT, "--init_epochs", "{epochs}", "--path_t", "{teacher_file}"),
)
SEMCKD = Repository(
    "SemCKD",
    "train_student.py",
    "semckd",
    ("resnet14", "resnet8"),
    (*TRAIN_STUDENT, "--path-t", "{teacher_file}"),
)
SIMKD = Repository(
    "SimKD",
    "train_student.py",
    "semckd",
    ("resnet8x4", "resnet14x2"),
    (*TRAIN_STUDENT, "--path_t", "{teacher_file}"),
)
MDISTILLER = Repository(
    "mdistiller",
    "tools/train.py",
    "dkd",
    ("resnet14", "resnet8"),
    (
        *("DISTILLER.TEACHER", "{teacher}", "DISTILLER.STUDENT", "{student}"),
        *("SOLVER.EPOCHS", "{epochs}", "SOLVER.BATCH_SIZE", "{batch}"),
        *("SOLVER.LR_DECAY_STAGES", "[1]", "SOLVER.LR", "{lr}", "LOG.WANDB", "False"),
    ),
)
REPOSITORIES = (REPDISTILLER, SEMCKD, SIMKD, MDISTILLER)

BANKS = (r"embed_s\.", r"embed_t\.", "memory_v1", "memory_v2")


def rep(theirs: str, row: str, *weights: float, **more: Any) -> Case:
    """Return a case of RepDistiller; ``weights``: alpha, beta and, if not 1, gamma."""
    flags = ("-a", f"{weights[0]:g}", "-b", f"{weights[1]:g}", *more.pop("flags", ()))
    if len(weights) > 2:
        flags += ("-r", f"{weights[2]:g}")
    return Case(REPDISTILLER, theirs, row, flags, **more)


def sem(theirs: str, row: str, beta: float, **more: Any) -> Case:
    """Return a case of SemCKD, where every term is added to cross-entropy and KL."""
    return Case(SEMCKD, theirs, row, ("-r", "1", "-a", "1", "-b", f"{beta:g}"), **more)


def sim(theirs: str, row: str, beta: float, weight: float = 1, **more: Any) -> Case:
    """Return a case of SimKD; ``weight``: of cross-entropy and KL."""
    flags = ("-c", f"{weight:g}", "-d", f"{weight:g}", "-b", f"{beta:g}")
    return Case(SIMKD, theirs, row, flags, **more)


def mdi(config: str, row: str, *flags: str, **more: Any) -> Case:
    """Return a case of mdistiller, by its configuration file."""
    return Case(MDISTILLER, f"configs/cifar100/{config}.yaml", row, flags, **more)


CASES = (
    rep("kd", "kd", 0.9, 0, 0.1),
    rep("hint", "fitnets", 0, 100),
    rep("attention", "at", 0, 1000),
    rep("similarity", "sp", 0, 3000),
    rep("correlation", "cc", 0, 0.02),
    rep("vid", "vid", 0, 1),
    rep("rkd", "rkd", 0, 1),
    rep("pkt", "pkt", 0, 30000),
    rep("abound", "ab", 0, 1),
    rep("factor", "ft", 0, 200),
    rep("fsp", "fsp", 0, 50),
    rep("nst", "nst", 0, 50),
    rep("kdsvd", "kdsvd", 0, 1, signs=True),
    rep(
        *("crd", "crd", 0, 0.8),
        flags=("--nce_k", str(NEGATIVES)),
        options={"k": NEGATIVES},
        modules=BANKS,
        unmatched=r"contrast\.params",
    ),
    rep(
        *("crd", "crd+kd", 1, 0.8),
        flags=("--nce_k", str(NEGATIVES)),
        options={"crd": {"k": NEGATIVES}},
        modules=BANKS,
        unmatched=r"contrast\.params",
    ),
    sem("kd", "kd", 0),
    sem("hint", "fitnets", 100),
    sem("attention", "at", 1000),
    sem("similarity", "sp", 3000),
    sem("correlation", "cc", 0.02),
    sem("vid", "vid", 1),
    sem("rkd", "rkd", 1),
    sem("pkt", "pkt", 30000),
    sem("irg", "irg", 0.005),
    sem("hkd", "hkd", 1),
    sem("semckd", "semckd", 400),
    sim("kd", "kd", 0),
    sim("hint", "fitnets", 100),
    sim("attention", "at", 1000),
    sim("similarity", "sp", 3000),
    sim("vid", "vid", 1),
    sim(
        *("semckd", "semckd", 400),
        modules=(r"queries\.", r"keys\.", r"regressors\."),
        unmatched=r"(query|key)_\d+\.regressor\..*",
    ),
    sim("srrl", "srrl", 1, modules=(r"transfer\.",)),
    sim(
        *("simkd", "simkd", 1, 0),
        modules=(r"transfer\.",),
        unused={r"(fc|classifier|linear)\.": "predicts nothing; in the authors' code it decays"},
    ),
    mdi("kd", "kd"),
    mdi("fitnet", "fitnets"),
    mdi("at", "at"),
    mdi("sp", "sp"),
    mdi("rkd", "rkd"),
    mdi("pkt", "pkt"),
    mdi("nst", "nst"),
    mdi(
        *("vid", "vid"),
        modules=(r"parts\.\d+\.regressor",),
        departs="the authors do not train the variances: docs/departures.md",
    ),
    mdi("kdsvd", "kdsvd", departs="the authors decompose another matrix: docs/departures.md"),
    mdi("dkd/res56_res20", "dkd", options={"rest": 2.0}),
    mdi(
        *("reviewkd", "reviewkd", "REVIEWKD.IN_CHANNELS", "{s_channels}"),
        *("REVIEWKD.OUT_CHANNELS", "{t_channels}", "REVIEWKD.SHAPES", "{s_sizes}"),
        *("REVIEWKD.OUT_SHAPES", "{t_sizes}"),
        options={"beta": 5.0},
    ),
    mdi(
        *("crd", "crd", "CRD.NCE.K", str(NEGATIVES)),
        *("CRD.FEAT.STUDENT_DIM", "{s_width}", "CRD.FEAT.TEACHER_DIM", "{t_width}"),
        options={"k": NEGATIVES},
        modules=BANKS,
        unmatched=r"contrast\.params",
    ),
)

SKIPPED = {
    "SemCKD: crd": "train_student.py fixes the number of training images at 50,000",
    "SimKD: crd": "train_student.py fixes the number of training images at 50,000",
    "mdistiller: OFD, DOT": "kdbench does not have them",
    "dist, ttm, tfkd, label_smoothing, confidence_penalty": "none of the repositories has them",
}
"""What is not compared, and why."""
