"""Published figures: names of tables, methods and data sets."""

import csv
from pathlib import Path

import pytest

from kdbench.grid import published
from kdbench.grid.published import lookup
from kdbench.registry import lookup as registry

TABLE1 = "SemCKD (AAAI 2021)/Table 1"


def test_figures_are_looked_up_by_names_of_kdbench() -> None:
    figure = lookup(TABLE1, "fitnets", "resnet32x4", "vgg8")
    assert figure is not None
    assert (figure.mean, figure.sd, figure.dataset) == (72.91, 0.18, "CIFAR-100")
    assert figure.source.startswith("SemCKD (AAAI 2021), Table 1")
    assert "not stated" in figure.notes
    assert lookup(TABLE1, "semckd", "resnet32x4", "vgg8").mean == 75.27  # type: ignore[union-attr]


def test_baselines_are_methods_of_the_table() -> None:
    teacher = lookup(TABLE1, "teacher", "resnet32x4", "vgg8")
    student = lookup(TABLE1, "student", "resnet32x4", "vgg8")
    assert teacher is not None and student is not None
    assert (teacher.mean, teacher.sd, student.mean) == (79.42, None, 70.46)


def test_figure_missing_in_a_table_is_none() -> None:
    assert lookup(TABLE1, "semckd", "resnet32x4", "resnet20") is None
    assert lookup(TABLE1, "simkd", "resnet32x4", "vgg8") is None
    assert lookup(TABLE1, "semckd", "resnet32x4", "vgg8", dataset="digits") is None


def test_spelling_of_data_set_does_not_matter() -> None:
    assert lookup(TABLE1, "semckd", "resnet32x4", "vgg8", dataset="cifar100") is not None
    assert lookup(TABLE1, "semckd", "resnet32x4", "vgg8", dataset="cifar10") is None


def test_order_of_terms_does_not_matter() -> None:
    reference = "NORM (ICLR 2023)/README tables 1-2"
    pair = ("wrn_40_2", "wrn_16_2")
    first = lookup(reference, "norm+kd", *pair)
    assert first is not None and first == lookup(reference, "kd+norm", *pair)


def test_full_name_is_preferred_to_longer_names() -> None:
    name = "torchdistill benchmarks/ImageNet ResNet-18"
    figure = lookup(name, "kd", "ResNet34", "ResNet18")
    assert figure is not None and "(original work column)" not in figure.source


def test_unknown_reference_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean SemCKD \(AAAI 2021\)/Table 1 \(README"):
        lookup("SemCKD (AAAI 2020)/Table 1", "kd", "a", "b")


def test_references_have_full_names() -> None:
    assert published.full_name(TABLE1) == "SemCKD (AAAI 2021)/Table 1 (README image)"
    for name in published.references():
        assert published.full_name(name) == name
    with pytest.raises(ValueError, match="unknown; accepted: "):
        published.full_name("SemCKD (AAAI 2020)/Table 1")


def test_ambiguous_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="not unique; accepted: "):
        lookup("CRD / RepDistiller (ICLR 2020)/README table", "kd", "a", "b")


def test_pair_published_on_two_data_sets_needs_a_data_set() -> None:
    reference = "Knowledge-Distillation-Zoo/README table 2"
    pair = ("resnet110", "resnet20")
    with pytest.raises(ValueError, match="on several data sets; give one of CIFAR-10, CIFAR-100"):
        lookup(reference, "kd", *pair)
    assert lookup(reference, "kd", *pair, dataset="cifar10") != lookup(
        reference, "kd", *pair, dataset="cifar100"
    )
    assert published.datasets(reference) == ["CIFAR-10", "CIFAR-100"]


def test_every_figure_has_its_epoch_and_objective() -> None:
    folder = Path(published.__file__).parent / "reference"
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        used = {(row["paper"], row["table"], row["notes"]) for row in csv.DictReader(file)}
    with (folder / "protocols.csv").open(newline="", encoding="utf-8") as file:
        rules = list(csv.DictReader(file))
    keys = [(row["paper"], row["table"], row["notes"]) for row in rules]
    assert len(keys) == len(set(keys)) and set(keys) == used
    epochs = {"last", "best", "between last and best", "not stated"}
    epochs |= {"not stated; the code keeps the best"}
    assert {row["epoch"] for row in rules} == epochs
    families = {row["objective"].partition(":")[0] for row in rules}
    assert families == {"crd", "semckd", "own", "its term alone", "CE alone", "not stated"}


def test_epoch_and_objective_of_the_two_families() -> None:
    pair = ("resnet32x4", "resnet8x4")
    ours = lookup(TABLE1, "fitnets", *pair)
    crd = "CRD / RepDistiller (ICLR 2020)/README table 1"
    theirs, kd = lookup(crd, "fitnets", *pair), lookup(crd, "kd", *pair)
    alone = lookup(crd, "student", *pair)
    assert ours and theirs and kd and alone
    assert (ours.epoch, ours.objective) == (
        "not stated; the code keeps the best", "semckd: CE + KD + term",
    )  # fmt: skip
    assert (theirs.epoch, theirs.objective) == ("last", "crd: CE + term, no KD")
    assert kd.objective == "crd: 0.1 CE + 0.9 KD"
    assert (alone.epoch, alone.objective) == ("last", "CE alone")


def test_every_row_can_be_looked_up() -> None:
    path = Path(published.__file__).parent / "reference" / "results.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 739 + 434
    for row in rows:
        reference = f"{row['paper']}/{row['table']}"
        names = (row["method"], row["teacher"], row["student"])
        figure = lookup(reference, *names, dataset=row["dataset"])
        assert figure is not None and figure.mean == float(row["top1_mean"]), row
    assert len(published.references()) == len({(row["paper"], row["table"]) for row in rows})


def test_dkd_has_the_setting_of_its_authors_configurations() -> None:
    """The misprinted pair of the README is that of the configuration, of the same figures."""
    reference = "DKD / mdistiller (CVPR 2022)/README CIFAR-100 table"
    assert lookup(f"{reference} 2", "dkd", "resnet32x4", "MobileNetV2") is None
    figure = lookup(f"{reference} 2", "dkd", "resnet32x4", "ShuffleV2")
    kd = lookup("CRD / RepDistiller (ICLR 2020)/README table 2", "kd", "resnet32x4", "ShuffleV2")
    copied = lookup(f"{reference} 2", "kd", "resnet32x4", "ShuffleV2")
    assert figure and kd and copied
    assert (figure.mean, figure.setting, copied.mean) == (77.07, {"rest": 8}, kd.mean)
    first = lookup(f"{reference} 1", "dkd", "resnet56", "resnet20")
    assert first and first.setting == {"rest": 2}
    assert copied.setting == {}


def test_every_setting_belongs_to_a_figure_and_a_hyper_parameter() -> None:
    folder = Path(published.__file__).parent / "reference"
    with (folder / "settings.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            names = (row["method"], row["teacher"], row["student"])
            figure = lookup(f"{row['paper']}/{row['table']}", *names)
            assert figure and figure.setting[row["option"]] == float(row["value"])
            assert row["option"] in registry.describe(row["method"].lower()).hyper


LSKD = "LSKD (CVPR 2024)/README CIFAR-100 table 2 (distinct structures)"
WKD = "WKD (NeurIPS 2024)/README CIFAR-100"
CROSS = ("resnet32x4", "ShuffleV2")
SAME = ("resnet32x4", "resnet8x4")


@pytest.mark.parametrize(
    ("label", "standardise", "mean"),
    [
        ("kd", False, 74.45),
        ("kd", True, 75.56),
        ("KD+LSKD", True, 75.56),
        ("standardised", True, 75.56),
        ("KD+LSKD", False, None),
        ("kd, T 1", False, None),
    ],
)
def test_row_meets_the_figure_with_its_options(
    label: str, standardise: bool, mean: float | None
) -> None:
    figure = lookup(LSKD, label, *CROSS, terms={"kd": {"standardise": standardise}})
    assert (figure.mean if figure else None) == mean


def test_variants_of_a_method_have_figures_of_different_names() -> None:
    def mean(label: str, variant: str) -> float | None:
        figure = lookup(WKD, label, *SAME, terms={"wkd": {"form": variant}})
        return figure.mean if figure else None

    assert (mean("wkd", "logit"), mean("wkd", "feature")) == (76.53, 76.77)
    assert (mean("ours", "feature"), mean("WKD-L", "logit")) == (76.77, 76.53)
    assert lookup(WKD, "kd", *SAME, terms={"kd": {"standardise": False}}) is None


def test_second_hand_figures_are_known_as_such() -> None:
    rld = lookup("RLD (ICCV 2025)/CIFAR-100, homogeneous (as in the note)", "rld", *SAME)
    norm = lookup("NORM (ICLR 2023)/README tables 1-2", "reviewkd", "wrn_40_2", "wrn_16_2")
    own = lookup(TABLE1, "semckd", "resnet32x4", "vgg8")
    assert rld and norm and own
    assert rld.second_hand and norm.second_hand and not own.second_hand
    assert rld.notes.startswith("second-hand; mean of 3 trials; read in a note on the paper")
    assert not any("SECONDARY" in figure.notes for figure in (rld, norm, own))


def test_independent_reproduction_is_a_source_with_its_trials_and_epoch() -> None:
    reference = "CRD-Reproduction (independent re-run, 2026)/README table"
    first = lookup(reference, "crd", *SAME, terms={"crd": {"tau": 0.07}})
    second = lookup(reference, "crd", *SAME, terms={"crd": {"tau": 0.1}})
    assert first and second
    assert (first.mean, first.sd, first.trials, first.epoch) == (75.328, 0.201, 5, "last")
    assert second.mean == 75.208
    assert lookup(reference, "crd", *SAME, terms={"crd": {"tau": 0.5}}) is None


def test_every_name_stands_for_a_method_and_its_options() -> None:
    folder = Path(published.__file__).parent / "reference"
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        printed = {row["method"] for row in csv.DictReader(file)}
    with (folder / "names.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} <= printed
    for row in rows:
        methods = row["ours"].split("+")
        for option in row["options"].split():
            assert option.partition(".")[0] in methods
            method, option = option.partition("=")[0].split(".")
            assert option in registry.describe(method).hyper
        assert set(methods) <= set(registry.names())
