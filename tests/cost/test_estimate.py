"""Estimated costs of runs, before training."""

from typing import Any

import pytest
from small_grids import first

from kdbench.cost.counting import DataShape
from kdbench.cost.estimate import Estimator, data_shape, looks_ahead, upper_bound
from kdbench.grid.run import Term
from kdbench.grid.settings import Dataset
from kdbench.models import size as cost
from kdbench.registry import lookup

CIFAR = DataShape(3, 32, 100, 50000, 10000)


def term(name: str, beta: float = 1.0, **hyper: Any) -> Term:
    return Term(name, beta, lookup.hyper(name, hyper))


def test_shapes_of_data_sets(tmp_path: Any) -> None:
    assert data_shape(Dataset(name="cifar100")) == CIFAR
    assert data_shape(Dataset(name="cifar10", per_class=100, validation=0.1)) == DataShape(
        3, 32, 10, 900, 10000
    )
    assert data_shape(Dataset(name="digits", per_class=30)) == DataShape(1, 8, 10, 300, 1497)
    for part, n in (("train", 3), ("test", 2)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(n):
                (tmp_path / part / name / f"{i}.png").touch()
    folder = Dataset(name="imagefolder", root=str(tmp_path), size=24)
    assert data_shape(folder) == DataShape(3, 24, 2, 6, 4)


def test_student_alone_costs_three_forwards_per_step() -> None:
    run = first("student", dataset="cifar100", protocol={"epochs": 2, "batch_size": 64})
    macs = cost.macs("r8w3", 3, 32, 100)
    images = 50000 // 64 * 64
    assert Estimator()(run).flops == 2 * (2 * 3 * images * macs + 2 * 10000 * macs)


def test_teacher_adds_its_forward_and_a_method_its_term() -> None:
    changes = {"dataset": "cifar100", "methods": ["kd", "semckd", "ft"]}
    estimator = Estimator()
    alone, kd, semckd = (
        estimator(first(name, **changes)).flops for name in ("student", "kd", "semckd")
    )
    assert kd - alone == 2 * (50000 // 64 * 64) * cost.macs("r8w4", 3, 32, 100)
    assert semckd > kd
    short = {"ft": {"pretrain_epochs": 1}}
    flops = estimator(first("ft", dataset="cifar100", methods=[short])).flops
    none = {"ft": {"pretrain_epochs": 0}}
    assert flops > estimator(first("ft", dataset="cifar100", methods=[none])).flops > kd


def test_dot_adds_a_momentum_and_a_backward_pass() -> None:
    estimator, changes = Estimator(), {"dataset": "cifar100", "methods": ["semckd"]}
    choices: tuple[dict[str, Any] | None, ...] = (None, {"dot": {}})
    for name in ("student", "semckd"):
        sgd, other = (
            estimator(first(name, protocol={"optimizer": optimizer}, **changes))
            for optimizer in choices
        )
        parts = (c.operations for c in (sgd, other))
        a, b = (part.student for part in parts)
        # Alone there is only the task's gradient.
        assert b / a == pytest.approx(5 / 3 if name == "semckd" else 1)
        assert sgd.held < other.held < 1.51 * sgd.held
        assert other.working > sgd.working


def test_second_view_costs_another_student_and_teacher() -> None:
    estimator, changes = Estimator(), {"dataset": "cifar100", "methods": ["kd", "mlkd"]}
    kd, mlkd = (estimator(first(name, **changes)) for name in ("kd", "mlkd"))
    assert mlkd.operations.student == 2 * kd.operations.student
    assert mlkd.operations.teacher == 2 * kd.operations.teacher
    assert mlkd.operations.evaluation == kd.operations.evaluation
    assert mlkd.teacher_features == 2 * kd.teacher_features
    assert mlkd.working > kd.working and mlkd.held == kd.held


def test_extra_parameters_are_those_of_the_method() -> None:
    estimator = Estimator()
    counted, rough = estimator.terms("resnet8x4", "resnet32x4", CIFAR, 64, [term("semckd")])
    # The authors' code has 10.2 M extra parameters on this pair.
    assert counted.parameters == pytest.approx(10.2e6, rel=0.01) and not rough
    counted, _ = estimator.terms("vgg8", "vgg13", CIFAR, 64, [term("semckd")])
    assert counted.parameters == pytest.approx(96.2e6, rel=0.01)
    counted, _ = estimator.terms("resnet8x4", "resnet32x4", CIFAR, 64, [term("sp"), term("at")])
    assert counted.parameters == 0 and counted.macs > 0


def test_estimated_memory_is_plausible() -> None:
    pairs = ["resnet32x4 -> resnet8x4"]
    run = first("kd", pairs=pairs, dataset="cifar100", protocol="semckd")
    cost = Estimator()(run)
    # Weights, momentum 10 MB, the teacher's weights 30 MB, activations of a step with 64 images
    # and those of 500 test images. benchmarks/memory.py compares with real processes.
    assert 9 < cost.held / 2**20 < 11 and 28 < cost.teacher / 2**20 < 31
    assert 600 < cost.working / 2**20 < 1000


@pytest.mark.parametrize("name", lookup.names())
def test_every_method_can_be_counted(name: str) -> None:
    shape = DataShape(3, 32, 10, 512, 256)
    counted, _ = Estimator().terms("r8w3", "r14w3", shape, 64, [term(name)])
    assert counted.incompatible == ""
    assert counted.pretrains == lookup.describe(name).has_pretrain or name == "fitnets"


def test_incompatible_method_gives_a_reason() -> None:
    counted, _ = Estimator().terms("vgg8", "ResNet50", CIFAR, 64, [term("fsp")])
    assert "FSP" in counted.incompatible


def test_wrong_option_fails_and_a_wrong_pair_is_skipped() -> None:
    wrong = first("sdd", methods=["kd", {"sdd": {"base": "nonsense"}}])
    assert Estimator()(wrong).problem.startswith("fails: sdd cannot be built or run: ")
    other = first("kdsvd", methods=["kd", "kdsvd"])
    assert Estimator()(other).problem.startswith("skipped: KDSVD needs equal channels")


def test_pair_is_scaled_from_another_without_time_left() -> None:
    hurried, exact = Estimator(0.0), Estimator()
    terms = [term("semckd")]
    assert hurried.terms("r8w3", "r8w4", CIFAR, 64, terms)[1] is False
    assert hurried.terms("r8w3", "r8w4", CIFAR, 64, terms)[1] is False
    rough, guessed = hurried.terms("r8w6", "r8w8", CIFAR, 64, terms)
    real, _ = exact.terms("r8w6", "r8w8", CIFAR, 64, terms)
    assert guessed and real.macs / 4 < rough.macs < real.macs * 4


@pytest.mark.parametrize("pair", ["resnet32x4 -> resnet8x4", "vgg13 -> vgg8", "r8w16 -> r8w3"])
def test_no_method_needs_more_memory_than_the_upper_bound(pair: str) -> None:
    changes: dict[str, Any] = {"pairs": [pair], "dataset": "cifar100", "protocol": "semckd"}
    estimator = Estimator()
    for name in ("kd", "crd", "semckd", "reviewkd", "vid", "ft", "nst", "ab", "semckd+at"):
        run = first(name, methods=[name], **changes)
        counted, most = estimator(run), upper_bound(run)
        assert counted.held <= most.held and counted.working <= most.working
        assert (counted.teacher, counted.data) == (most.teacher, most.data)


def test_memory_grows_with_the_batch_and_with_the_method() -> None:
    def cost(name: str, batch: int) -> Any:
        protocol = {"preset": "semckd", "batch_size": batch}
        return Estimator()(first(name, methods=[name], dataset="cifar100", protocol=protocol))

    small, large, semckd = cost("kd", 16), cost("kd", 64), cost("semckd", 64)
    assert small.held == large.held < semckd.held
    assert small.working < large.working < semckd.working
    assert large.teacher_features == 4 * small.teacher_features
    assert large.data == small.data == 50000 * 3 * (32**2 + 40**2) + 10000 * 3 * 32**2 + 8 * 60000


@pytest.mark.parametrize("name", ["kd", "semckd", "ab"])
def test_bf16_halves_activations_but_not_weights(name: str) -> None:
    def cost(precision: str) -> Any:
        protocol = {"preset": "semckd", "precision": precision}
        pairs = ["resnet32x4 -> resnet8x4"]
        run = first(name, methods=[name], pairs=pairs, dataset="cifar100", protocol=protocol)
        counted = Estimator()(run)
        assert counted.working <= upper_bound(run).working
        return counted

    full, half = cost("fp32"), cost("bf16")
    assert (half.held, half.teacher, half.data) == (full.held, full.teacher, full.data)
    assert 0.5 * full.working < half.working < 0.7 * full.working
    assert half.teacher_features == full.teacher_features / 2
    assert half.flops == full.flops


def test_first_phase_is_counted() -> None:
    ab = Estimator().terms("r8w3", "r8w4", CIFAR, 64, [term("ab")])[0]
    kd = Estimator().terms("r8w3", "r8w4", CIFAR, 64, [term("kd")])[0]
    assert ab.phase_kept > 100 * ab.kept and kd.phase_kept == 0


def test_shared_stages_of_a_group_are_counted_once() -> None:
    estimator = Estimator()

    def cost(method: Any) -> Any:
        return estimator(first("okddip", methods=[method], dataset="cifar100"))

    alone = estimator(first("student", dataset="cifar100"))
    branch, network = cost("okddip"), cost({"okddip": {"form": "network"}})
    assert network.operations.student == 4 * alone.operations.student
    assert 1 < branch.operations.student / alone.operations.student < 3
    assert alone.held < branch.held < network.held
    assert alone.working < branch.working < network.working < 4.5 * alone.working


def test_group_stays_below_the_upper_bound() -> None:
    for name in ("dml", "one", "cl_ilr", "okddip"):
        run = first(name, methods=[name], pairs=["resnet32x4 -> resnet8x4"], dataset="cifar100")
        counted, most = Estimator()(run), upper_bound(run)
        assert not counted.problem
        assert counted.held <= most.held and counted.working <= most.working


def test_look_ahead_keeps_a_graph_per_step() -> None:
    def counted(**hyper: Any) -> Any:
        return Estimator().terms("r8w3", "r8w4", CIFAR, 64, [term("l2tww", **hyper)])[0]

    one, two, three = (counted(looks=looks) for looks in (1, 2, 3))
    assert two.kept - one.kept == pytest.approx(three.kept - two.kept, rel=0.002)
    assert three.macs - two.macs == two.macs - one.macs > 0
    assert looks_ahead(first("l2tww", methods=["l2tww"]))
    assert not looks_ahead(first("kd"))
