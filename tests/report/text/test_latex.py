import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_grids import PAIRS, ended, evidence_of, make_cells, make_grid, make_records, typical
from hypothesis import given
from hypothesis import strategies as st

from kdbench.grid.grid import Report
from kdbench.report.text import latex
from kdbench.stats.aggregate import aggregate

HOSTILE = r"\input{/etc/passwd} $x_1^2$ & 50% #1 ~ {a} <b>|`'" + '"- --- [*] é ß 方法 ± →'
WRAPPER = (
    r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    r"\input{leaderboard}\end{document}"
)
needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="needs pdflatex: apt-get install texlive-latex-base texlive-latex-recommended",
)


def written(methods: tuple[str, ...] = ("kd", "at", "semckd"), **changes: object) -> dict[str, str]:
    """Return the .tex and .csv of a grid with an incomplete cell and a skipped row."""
    grid = make_grid(**{"pairs": PAIRS} | changes)  # type: ignore[arg-type]
    cells = make_cells(grid, (*methods, "fsp"))
    records = make_records(
        cells, lambda run: 81.0 if run.method in ("fsp", HOSTILE) else typical(run)
    )
    for cell in cells:
        for run in cell.runs:
            if run.method == "fsp":
                records[run.id] = ended(run, "skipped", "FSP needs equal channels")
    del records[cells[2].runs[0].id]
    statistics = aggregate(evidence_of(grid, cells, records))
    return {
        "tex": latex.leaderboard(statistics),
        "csv": statistics.frame.to_csv(float_format="%.10g"),
    }


def rows(tex: str) -> list[list[str]]:
    """Return the cells of the first table's body, without bold and marks, with ± and - as text."""
    out = []
    first, *_ = tex.split(r"\end{table}")
    for body in re.findall(r"\\midrule\n(.*?)\\bottomrule", first, re.DOTALL):
        for line in body.splitlines():
            text = re.sub(r"\\textbf\{(.*?)\}(?= &| \\\\)", r"\1", line)
            text = text.replace(r" $\bullet$", "")
            text = text.replace(r"$\pm$", "±").replace("$-$", "-").replace("{-}", "-")
            out.append([cell.strip() for cell in text.removesuffix(r"\\").split(" & ")])
    return out


def test_cells_match_the_csv() -> None:
    files = written()
    table = {row[0]: row[1:3] for row in rows(files["tex"])}
    count = 0
    for row in csv.DictReader(io.StringIO(files["csv"])):
        cell = table[row["method"]][[student for _, student in PAIRS].index(row["student"])]
        if row["status"] == "skipped":
            assert cell == "skipped"
            continue
        text = f"{float(row['mean']):.2f}"
        text += f" ± {float(row['sd']):.2f}" if row["sd"] else ""
        text += f" ({row['n']}/{row['expected']})" if row["status"] == "partial" else ""
        assert cell == text
        count += 1
    assert count == 10


def test_highest_mean_is_bold_and_differences_are_marked() -> None:
    tex = written()["tex"]
    first, second, _ = tex.split(r"\end{table}")
    # One of three methods may be the best on each pair, and over pairs.
    assert first.count(r"\textbf{") == first.count(r"\textbf{84.50 $\pm$ 0.40 $\bullet$}") == 2
    assert r"semckd $\bullet$ & \textbf{84.50} &" in second and second.count(r"\textbf") == 1
    assert re.search(r"at & 83\.50 & \+1\.02 \{\[\}.*\{\]\} & \$\\uparrow\$ & 2 & ", second)
    assert re.search(r"kd & 82\.60 \(1 of 6 runs missing\) & -- &  & 3 & ", second)
    assert re.search(r"student & 80\.50 & .* & \$\\downarrow\$ & 4 & ", second)
    assert "Not ranked: fsp (2 of 2 pairs missing)." in second
    grid = make_grid(report=Report())
    cells = make_cells(grid, ("kd", "semckd"))
    tex = latex.leaderboard(aggregate(evidence_of(grid, cells, make_records(cells, typical))))
    assert "ARI" not in tex


def test_layout_is_that_of_the_paper() -> None:
    tex = written()["tex"]
    assert [row[0] for row in rows(tex)] == ["teacher", "student", "kd", "at", "semckd", "fsp"]
    assert "Teacher & big & big &  \\\\\nStudent & small & tiny & ARI of semckd, \\% \\\\" in tex
    assert rows(tex)[3][-1] == "33.33" and rows(tex)[4][-1].startswith("mean ")


def test_many_pairs_are_split_into_panels() -> None:
    tex = written(pairs=[("big", f"s{i}") for i in range(9)])["tex"]
    assert tex.count(r"\begin{tabular}") == 3 and tex.count("ARI of") == 1
    tex = written(pairs=[("big", f"s{i}") for i in range(30)])["tex"]
    assert tex.count(r"\begin{tabular}") == 5 and "2 further pairs are not shown" in tex


def test_escape() -> None:
    assert latex.escape("wrn_40_2 & 5%") == r"wrn\_40\_2 \& 5\%"
    assert latex.escape("-3.1 [-2, a-b --") == r"$-$3.1 {[}$-$2, a{-}b {-}{-}"
    assert latex.escape("a\n\n b\x07方") == r"a b{[}U+0007{]}{[}U+65B9{]}"


@given(st.text())
def test_escaped_text_contains_no_command(text: str) -> None:
    escaped = latex.escape(text)
    specials = sorted(latex.SPECIAL.values(), key=len, reverse=True)
    for special in specials:
        escaped = escaped.replace(special, "")
    assert not set(escaped) & set("\\{}$&#^_~%<>|`'\"[]*")
    assert escaped.isprintable()


@needs_latex
@pytest.mark.parametrize("pairs", [PAIRS, [("big_1", f"s{i}") for i in range(9)]])
def test_table_compiles(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    files = written(("kd", HOSTILE, "at", "semckd"), pairs=pairs, title=HOSTILE)
    (tmp_path / "leaderboard.tex").write_text(files["tex"])
    (tmp_path / "paper.tex").write_text(WRAPPER)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run(
        [*command, "paper.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
