from fake_grids import aggregate_of, make_cells, make_grid, make_records, row_of, typical
from small_grids import small

from kdbench.grid.expand import expand
from kdbench.grid.grid import Report
from kdbench.grid.settings import Dataset
from kdbench.report.tables.published import _letter, published_figures


def test_published_figures_are_compared_with_ours() -> None:
    grid = make_grid(
        [("resnet32x4", "vgg8")],
        dataset=Dataset(name="cifar100"),
        report=Report(reference="SemCKD (AAAI 2021)/Table 1"),
    )
    cells = make_cells(grid, ("kd", "fitnets"))
    accuracies = {"fitnets": 73.0}
    records = make_records(cells, lambda run: accuracies.get(run.method) or typical(run))
    frame = aggregate_of(grid, cells, records).frame
    table = published_figures(frame, "SemCKD (AAAI 2021)/Table 1")
    cell_texts = {name: row_of(table, name)["resnet32x4 → vgg8"] for name in table.rows["Method"]}
    assert cell_texts["fitnets"] == "72.91 ± 0.18 (ours +0.09) c"
    assert cell_texts["kd"].endswith(" c")
    assert table.notes[0] == (
        "4 of 4 cells have a published figure; 4 of these also have a result of ours."
    )
    by_mark = {note[0]: note for note in table.notes[2:]}
    assert by_mark["a"].startswith("a: epoch: last; objective: CE alone; source: SemCKD (AAAI")
    assert "epoch: not stated; the code keeps the best; objective: semckd: CE + KD" in by_mark["c"]
    assert not table.bold


def test_published_figures_of_other_data_are_not_shown() -> None:
    grid = make_grid(
        [("resnet32x4", "vgg8")], report=Report(reference="SemCKD (AAAI 2021)/Table 1")
    )
    cells = make_cells(grid)
    frame = aggregate_of(grid, cells, make_records(cells, typical)).frame
    assert frame["published_mean"].isna().all()
    assert published_figures(frame, "x").rows.empty


def test_setting_of_a_figure_is_stated_and_where_ours_differs() -> None:
    reference = "DKD / mdistiller (CVPR 2022)/README CIFAR-100 table 1"
    grid = small(
        dataset="cifar100",
        protocol="dkd",
        pairs=[
            {"teacher": "resnet56", "student": "resnet20", "options": {"dkd": {"rest": 2}}},
            "vgg13 -> vgg8",
        ],
        methods=["dkd"],
        report={"reference": reference},
    )
    cells = expand(grid).cells
    frame = aggregate_of(grid, cells, make_records(cells, lambda run: 70.0)).frame
    table = published_figures(frame, reference)
    by_mark = {note[0]: note for note in table.notes[2:]}
    row = row_of(table, "dkd")
    same, other = (by_mark[row[pair][-1]] for pair in ("resnet56 → resnet20", "vgg13 → vgg8"))
    assert "objective: own: DKD's weights; rest 2; source" in same
    assert "objective: own: DKD's weights; rest 6, here 8; source" in other


def test_cell_without_a_result_is_not_counted() -> None:
    grid = make_grid(
        [("resnet32x4", "vgg8")],
        dataset=Dataset(name="cifar100"),
        report=Report(reference="SemCKD (AAAI 2021)/Table 1"),
    )
    cells = make_cells(grid, ("kd", "crd"))
    records = make_records(cells, lambda run: typical(run) if run.method != "crd" else 70.0)
    for run in cells[2].runs:
        del records[run.id]
    table = published_figures(aggregate_of(grid, cells, records).frame, "x")
    assert table.notes[0].startswith("3 of 4 cells have a published figure; 2 of these")
    assert row_of(table, "kd")["resnet32x4 → vgg8"].startswith("72.73 ± 0.15 ")
    assert "ours" not in row_of(table, "kd")["resnet32x4 → vgg8"]


def test_notes_have_letters_in_order() -> None:
    assert [_letter(i) for i in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


def test_second_hand_figures_are_marked() -> None:
    reference = "NORM (ICLR 2023)/README tables 1-2"
    grid = make_grid(
        [("wrn_40_2", "wrn_16_2")],
        dataset=Dataset(name="cifar100"),
        report=Report(reference=reference),
    )
    cells = make_cells(grid, ("kd", "reviewkd"))
    records = make_records(cells, lambda run: 75.0)
    table = published_figures(aggregate_of(grid, cells, records).frame, reference)
    cell = row_of(table, "reviewkd")["wrn_40_2 → wrn_16_2"]
    assert cell.startswith("76.12 (second-hand, ours −1.12) ")
    assert "Second-hand: quoted by a later document, and not seen in its own." in table.notes
    [note] = [note for note in table.notes if note.startswith(f"{cell[-1]}: ")]
    assert note.endswith("(second-hand; quoted by NORM from the method's paper).")
