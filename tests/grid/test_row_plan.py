"""Rows that no grid may have."""

from pathlib import Path

import pytest
from small_grids import PLUGIN, expanded

from kdbench.grid.grid import GridError


def plugin(folder: Path, name: str, attribute: str = "brings_peers = True") -> str:
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.replace("    beta = 2.0", f"    {attribute}"))
    return str(path)


def test_two_methods_that_bring_peers_are_refused_in_a_row(tmp_path: Path) -> None:
    a, b = (plugin(tmp_path, name) for name in ("first", "second"))
    for rows in ([a, b], [f"{a}+kd"]):
        expanded(methods=rows)
    message = (
        r"^grid\.yaml: methods\.first\+second: first and second both bring peers; "
        r"expected one of them in a row$"
    )
    with pytest.raises(GridError, match=message):
        expanded(methods=[f"{a}+{b}"])


def test_method_for_one_rank_is_refused_on_several(tmp_path: Path) -> None:
    path = plugin(tmp_path, "alone", "one_rank = True")
    expanded(methods=[path])
    ranks = {"executor": {"kind": "debug", "ranks": 2}}
    expanded(methods=["kd"], **ranks)
    message = (
        r"^grid\.yaml: methods\.alone: alone trains on one rank; executor\.ranks is 2, expected 1$"
    )
    with pytest.raises(GridError, match=message):
        expanded(methods=[path], **ranks)


def test_optimizer_is_refused_for_a_method_that_looks_ahead() -> None:
    dot = {"protocol": {"preset": "demo", "nesterov": False, "optimizer": {"dot": {}}}}
    expanded(methods=["kd"], **dot)
    message = (
        r"^grid\.yaml: methods\.l2tww: l2tww looks ahead with SGD; protocol\.optimizer is DOT with "
        r"delta 0\.075, expected null$"
    )
    with pytest.raises(GridError, match=message):
        expanded(methods=["l2tww"], **dot)
