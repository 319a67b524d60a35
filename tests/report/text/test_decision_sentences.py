import pytest
from given_accuracies import statistics, vector

from kdbench.grid.grid import Report
from kdbench.grid.settings import Dataset
from kdbench.report.text.decision_sentences import cost, sure, which

ONE = "big → small0"


def plain(lines: list[str]) -> str:
    """Join sentences, with the ASCII signs of the specification."""
    return " ".join(lines).replace("×", "x").replace("−", "-").replace("→", "->")


def rows(**accuracies: str) -> dict[str, dict[int, float]]:
    """Return row -> seed -> accuracy, from accuracies separated by spaces; "-": no result."""
    return {
        row: {seed: float(v) for seed, v in enumerate(values.split()) if v != "-"}
        for row, values in accuracies.items()
    }


def test_quick() -> None:
    quick = statistics(
        **vector("quick"),
        names=["v8w16 -> v5w8", "v8w16 -> r8w8"],
        deployed={"simkd": [2987, 1645]},
        methods=["fsp", "kdsvd"],
    )
    assert plain(which(quick)) == (
        "reviewkd: the highest mean, 54.59 % over 2 pairs, +5.53 over kd [+4.57, +6.48] (adjusted "
        "p < 0.001), 2.68 x its training time. Cannot be placed: ab (runs differ too much on v8w16 "
        "-> r8w8). All 24 others are behind. For less time: simkd takes 1.24 x: 1.56 [0.61, 2.51] "
        "below reviewkd, told better than kd; it deploys 3.0 x and 1.6 x the student's parameters. "
        "Not ranked: fsp, kdsvd (2 of 2 pairs missing)."
    )
    assert sure(quick) == [
        "7 of 26 rows are told apart from kd over pairs (3 better, 4 worse, the student among "
        "them).",
        "About 6 seeds would find 1 point between two rows.",
    ]
    assert cost(quick)[:2] == [
        "Methods take from 0.76 × (tfkd) to 6.24 × (semckd) the training time of kd.",
        "Deployed with more parameters than the student: simkd (3.0 × and 1.6 ×).",
    ]


def test_demo() -> None:
    demo = statistics(**vector("demo"))
    assert plain(which(demo)) == (
        "sp: the highest mean, 93.20 % over 2 pairs, +1.34 over kd [-0.41, +3.08] (not settled), "
        "1.04 x its training time. 3 seeds do not single out a method: 21 of 25 may be the best; "
        "sp is at most 1.61 points below it. Clearly behind: tfkd, label_smoothing. Cannot be "
        "placed: dist, confidence_penalty (runs differ too much)."
    )
    assert sure(demo) == [
        "3 of 25 rows are told apart from kd over pairs (all worse, the student among them).",
        "About 11 seeds would settle sp against kd at the difference seen, 19 a difference of 1 "
        "point.",
    ]


NOT_SETTLED = "+0.{} over kd [−{}, +{}] (not settled), 1.00 × its training time."
CASES = {
    "one_seed": (["One seed each: no difference can be judged."], []),
    "four_pairs_one_seed": (["One seed each: no difference can be judged."], []),
    "all_constant": (["No difference has an interval, so none can be judged."], []),
    "two_rows_constant": (["No difference has an interval, so none can be judged."], []),
    "no_common_seeds": (
        ["fitnets and at have no seed in common, so the rows cannot be ranked."],
        [
            "0 of 4 rows are told apart from kd.",
            "About 15 seeds would find 1 point between two rows.",
        ],
    ),
    "one_pair_with_one_seed": (
        [
            "sp: the highest mean, 70.79 % over 1 of 2 pairs, "
            + NOT_SETTLED.format("84", "1.92", "3.60"),
            "3 seeds do not single out a method: 5 of 5 may be the best; sp is at most 2.43 points "
            "below it.",
            "Left out: big → small1 has one seed.",
        ],
        [
            "0 of 4 rows are told apart from kd over pairs.",
            "About 62 seeds would settle sp against kd at the difference seen, 44 a difference of "
            "1 point.",
        ],
    ),
    "one_row_with_one_seed": (
        [
            "vid: the highest mean, 70.82 %, " + NOT_SETTLED.format("64", "1.18", "2.46"),
            "3 seeds do not single out a method: 5 of 5 may be the best; vid is at most 1.64 "
            "points below it.",
            "Not ranked: sp (one seed).",
        ],
        [
            "0 of 4 rows are told apart from kd.",
            "About 46 seeds would settle vid against kd at the difference seen, 19 a difference of "
            "1 point.",
        ],
    ),
    "skipped_cell": (
        [
            "at: the highest mean, 70.59 % over 2 pairs, "
            + NOT_SETTLED.format("89", "1.09", "2.87"),
            "3 seeds do not single out a method: 5 of 5 may be the best; at is at most 1.77 points "
            "below it.",
            "Not ranked: vid (1 of 2 pairs missing).",
        ],
        [
            "0 of 5 rows are told apart from kd over pairs.",
            "About 29 seeds would settle at against kd at the difference seen, 23 a difference of "
            "1 point.",
        ],
    ),
    "missing_seeds": (
        [
            "sp: the highest mean, 70.60 %, " + NOT_SETTLED.format("26", "1.23", "1.75"),
            "2 to 5 seeds do not single out a method: 7 of 7 may be the best; sp is at most 1.35 "
            "points below it.",
        ],
        [
            "0 of 6 rows are told apart from kd.",
            "More than 100 seeds would settle sp against kd at the difference seen, 18 a "
            "difference of 1 point.",
        ],
    ),
    "equal_means": (
        [
            "kd: the highest mean, 70.83 %. Nothing is shown to beat kd.",
            "3 seeds do not single out a method: 5 of 5 may be the best; kd is at most 2.03 points "
            "below it.",
        ],
        [
            "0 of 4 rows are told apart from kd.",
            "About 19 seeds would find 1 point between two rows.",
        ],
    ),
    "one_winner": (
        [
            "vid: the highest mean, 75.13 %, +4.99 over kd [+4.71, +5.28] (adjusted p < 0.001), "
            "1.00 × its training time.",
            "vid is told from all others.",
        ],
        [
            "1 of 5 rows is told apart from kd (vid is better).",
            "5 seeds suffice to find 1 point between two rows.",
        ],
    ),
    "seven_pairs": (
        [
            "hkd: the highest mean, 71.01 % over 7 pairs, +1.73 over kd [+1.06, +2.40] (adjusted "
            "p < 0.001), 1.00 × its training time.",
            "1 other may be as good or better: at; hkd is less than 0.01 points below it.",
            "All 4 others are behind.",
        ],
        [
            "2 of 5 rows are told apart from kd over pairs (1 better, 1 worse).",
            "3 seeds suffice to find 1 point between two rows.",
        ],
    ),
    "two_rows": (
        [
            "fitnets: the highest mean, 69.04 %, " + NOT_SETTLED.format("64", "2.35", "3.62"),
            "3 seeds do not single out a method: 2 of 2 may be the best; fitnets is at most 2.35 "
            "points below it.",
        ],
        [
            "fitnets is not told apart from kd.",
            "More than 100 seeds would settle fitnets against kd at the difference seen, 47 a "
            "difference of 1 point.",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_edge_case(name: str) -> None:
    given = statistics(**vector(name) | {"times": {}})
    assert (which(given), sure(given)) == CASES[name]


def test_rows_that_take_less_time_are_named() -> None:
    assert which(statistics(**vector("close_times")))[-1] == (
        "vid takes 1.20 ×, is 0.01 [−0.93, 0.95] below at."
    )


SEEDS = ("0 0.3 -0.2", "0.1 -0.2 0.2", "-0.1 0.2 0", "0.2 0 -0.1", "-0.2 0.1 0.1", "0 -0.1 0.2")
"""Residuals of six rows; their differences vary by about 0.3 points."""


def shifted(**means: float) -> dict[str, dict[int, float]]:
    """Return accuracies of three seeds around means."""
    return {
        row: {s: mean + float(x) for s, x in enumerate(wiggle.split())}
        for (row, mean), wiggle in zip(means.items(), SEEDS, strict=False)
    }


def test_several_that_may_be_the_best() -> None:
    given = shifted(student=60, kd=70, at=75, sp=75.2, vid=75.1, cc=65)
    given |= {"rkd": {s: v - 5 for s, v in given["at"].items()}}
    given |= {"pkt": {s: v - 5.1 for s, v in given["sp"].items()}}
    lines = which(statistics([given]))
    assert lines[0].startswith("sp: the highest mean, 75.23 %, +5.20 over kd [+4.69, +5.71] (adj")
    assert lines[1].startswith("2 others may be as good or better: vid, at; sp is at most 0.")
    assert lines[1].endswith(" points below the best of them.")
    assert lines[2:] == ["All 4 others are behind."]


def test_nothing_beats_training_alone() -> None:
    lines = which(statistics([shifted(student=70, kd=70, at=70.1, sp=69.9)]))
    assert lines == [
        "These seeds do not show that any method beats training alone.",
        "Cannot be placed: at, kd, sp (not shown to beat training alone).",
    ]


def test_run_that_diverged_leaves_a_row_unplaced() -> None:
    given = shifted(student=60, kd=70, at=75, sp=75.2, vid=65, cc=64)
    for row, seed in (("at", 2), ("sp", 0), ("sp", 2)):
        del given[row][seed]
    given["sp"][1] += 0.3
    given["sp"][0] = 75.0
    lines = which(statistics([given], diverged=["at", "sp"]))
    assert lines[0] == "No method is recommended: none that may be the best can be placed."
    assert lines[1] == "Cannot be placed: sp, at (a run diverged)."


def test_mean_above_the_leaders_is_not_denied() -> None:
    given = shifted(student=60, kd=70, at=75, sp=75.2, vid=65, cc=64)
    del given["sp"][2]
    lines = which(statistics([given], diverged=["sp"]))
    assert lines[0].startswith("at: the highest mean of those that can be placed, 75.03 %, +5.")
    assert lines[1:] == ["Cannot be placed: sp (a run diverged).", "All 3 others are behind."]


def test_difference_that_counts_alone_but_not_among_all() -> None:
    given = vector("demo")["pairs"][0]
    rows = {row: given[row] for row in ("kd", "at", "sp", "cc", "pkt", "irg", "nst", "ft")}
    rows["at"] = {seed: rows["kd"][seed] + 1.9 + 0.1 * seed for seed in rows["kd"]}
    statistic = statistics([rows])
    contrast = statistic.decision.over.contrasts["at", "kd"]
    assert contrast.low > 0 and not contrast.told
    assert f"(adjusted p = {contrast.p_adj:.2g})" in which(statistic)[0]
    assert "would tell at from kd among all 8 rows at the difference seen" in sure(statistic)[-1]


def test_grid_without_the_baseline() -> None:
    given = statistics([shifted(student=60, at=75, sp=65)], report=Report(baseline="kd"))
    assert given.decision.baseline is None
    assert which(given) == [
        "at: the highest mean, 75.03 %.",
        "sp is behind.",
    ]
    assert sure(given) == ["About 4 seeds would find 1 point between two rows."]


def test_nothing_is_finished() -> None:
    given = statistics([{}], methods=["student", "kd", "at"])
    assert which(given) == ["No method has a result yet."]
    assert sure(given) == []


def test_only_the_student_has_two_seeds() -> None:
    given = statistics([rows(student="70 71 72", kd="71 - -", at="- 72 -")])
    assert which(given) == ["No difference has an interval, so none can be judged."]


def test_pair_that_is_not_begun_is_left_out() -> None:
    given = statistics([shifted(student=60, kd=70, at=75, sp=74.9), {}])
    lines = which(given)
    assert "% over 1 of 2 pairs, " in lines[0]
    assert lines[-1] == "Left out: big → small1 has no result yet."


def test_sweep_names_no_winner() -> None:
    given = statistics(
        [shifted(student=60, kd=70, at=75)],
        sweep={"at.beta": (1, 10)},
        dataset=Dataset(name="digits", validation=0.2),
    )
    assert which(given) == [
        "Choose on held-out images: kdbench select --grid experiments/fake.yaml."
    ]


def test_leader_that_deploys_more_is_named_with_it() -> None:
    given = shifted(student=60, kd=70, at=75, sp=65)
    for deployed, words in ((1004, "1.004 ×"), (2987, "3.0 ×")):
        lines = which(statistics([given], deployed={"at": [deployed]}))
        assert lines[0].endswith(
            f", 1.00 × its training time; it deploys {words} the student's parameters."
        )


def test_noisy_baseline_is_said() -> None:
    given = statistics(**vector("demo"), report=Report(baseline="confidence_penalty"))
    assert (
        f"confidence_penalty itself is noisy on {ONE}: with few seeds, intervals of differences to "
        "it may cover less than 95 %."
    ) in sure(given)


def test_cost() -> None:
    assert cost(statistics([shifted(student=60, kd=70)])) == ["7 runs: 11.7 min in total."]
    assert cost(statistics([{}], methods=["kd"])) == ["1 run: 1.7 min in total."]
