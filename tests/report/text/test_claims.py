from dataclasses import replace

from fake_grids import (
    PROTOCOL,
    aggregate_of,
    make_cells,
    make_grid,
    make_records,
    markdown,
    page,
    typical,
)

from kdbench.grid.grid import Report
from kdbench.grid.optimizers import Dot, Optimizer


def test_page_begins_with_facts_about_the_runs() -> None:
    text = page()
    assert text.startswith("# A fake grid\n")
    assert "kdbench report --grid experiments/fake.yaml " in text
    assert "kdbench run --grid experiments/fake.yaml " in text
    assert f"digits; 1,000 training and 400 test images; digest {'d' * 64}" in text
    assert "demo: 2 epochs; batch 64; SGD, learning rate 0.05;" in text
    assert "gamma 1, alpha 1, T 4 unless a method says otherwise" in text
    assert "after the last epoch" in text
    assert "- **Seeds**: 0, 1, 2, the same" in text
    assert "95.00 %, weights aaaaaaaaaaaaaaaa\n" in text
    assert "- **Machine**: cpu (A Processor), 1 thread, torch 2.9.0\n" in text
    assert "- **Code**: kdbench 0.1.0, commit 0123456789ab\n" in text
    assert "- **Runs**: 25: 25 done, 0 diverged, 0 failed, 0 skipped, 0 missing\n" in text
    assert "ATTENTION" not in text


def test_page_names_the_optimizer() -> None:
    protocol = PROTOCOL.model_copy(update={"optimizer": Optimizer(dot=Dot())})
    assert "; DOT with delta 0.075, learning rate 0.05; " in page({"protocol": protocol})


def test_different_machines_and_commits_give_a_warning() -> None:
    text = page(commit="f" * 40, dirty=True, threads=2)
    assert "**Machine**: ATTENTION: not the same for all runs: cpu (A Processor), 1 thread" in text
    assert "commit ffffffffffff WITH UNCOMMITTED CHANGES (1 run)" in text


def test_vector_instructions_are_part_of_the_machine() -> None:
    assert "cpu (A Processor, AVX2), 1 thread" in page(cpu_capability="AVX2", onednn_limit=None)
    text = page(cpu_capability="AVX512", onednn_limit="AVX2")
    assert "cpu (A Processor, AVX512, oneDNN limited to AVX2), 1 thread" in text
    assert "**Machine**: ATTENTION: not the same for all runs: cpu (A Processor), 1 thread" in text


def test_libraries_of_a_gpu_are_part_of_the_machine() -> None:
    text = page(device="NVIDIA H200", cuda="13.0", cudnn="9.10.2", driver="580.65.06")
    assert "NVIDIA H200, CUDA 13.0, cuDNN 9.10.2, 1 thread, torch 2.9.0 (1 run)" in text
    assert "Repeatability" not in text


def test_operations_that_may_vary_are_named() -> None:
    text = page(nondeterministic=["upsample_bilinear2d", "scatter_add"])
    line = "these operations of some runs vary in the last bits: scatter_add, upsample_bilinear2d"
    assert f"- **Repeatability**: {line}\n" in text.replace("\\_", "_")


def test_supported_and_unsupported_claims() -> None:
    report = Report(ari_of="semckd", supports="the pipeline works", against="any ranking")
    text = page({"report": report})
    assert (
        "**What this supports**\n\n- the pipeline works\n- Compared with kd over 2 pairs, after "
        "allowing for all 4 rows (5 %): better: semckd (+2.00) and at (+1.00); worse: "
        "student (−2.00)."
    ) in text
    assert "**What this does not support**\n\n- any ranking\n- Test set: an accuracy of 82." in text
    assert "on 400 images has a standard error of 1.89 points" in text
    assert "with 3 seeds on 2 pairs, a true difference to kd of less than 0." in text
    assert "in the tables, which allow for all 4 rows" in text
    assert "each was trained once (seed 0) or imported" in text
    assert "Not stated in the grid file." in page()


def test_missing_baseline_is_reported() -> None:
    text = page({"report": Report(baseline="crd")})
    assert "the report's baseline is not a row of this grid" in text
    assert "## Difference to" not in text


def test_one_seed_supports_no_test() -> None:
    assert "no difference between methods can be tested" in page({"seeds": (0,)})


def test_different_teacher_weights_give_a_warning() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, typical)
    run = cells[2].runs[1]
    result = records[run.id].result
    assert result
    records[run.id] = replace(records[run.id], result=replace(result, teacher_weights="b" * 64))
    text = markdown(aggregate_of(grid, cells, records))
    assert "ATTENTION: not all students were trained with the same weights" in text
