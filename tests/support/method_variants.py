"""All variants of methods that a hyper-parameter selects, for tests over all of them."""

from typing import Any

from kdbench.registry import lookup

OTHERS: dict[str, list[dict[str, Any]]] = {
    "ab": [{"main": True}],
    "catkd": [{"normalise": True}, {"binarise": True, "grid": 4}],
    "cc": [{"variant": "paper"}],
    "cl_ilr": [{"variant": "paper"}],
    "codistill": [{"peers": 3, "interval": 2}],
    "crd": [{"mode": "relax"}, {"k": 20}],
    "ctkd": [{"entropy_weighting": True}],
    "dist": [{"standardise": True}],
    "dkd": [{"standardise": True}, {"warmup": 0}, {"entropy_weighting": True}],
    "dml": [
        {"partners": "sum", "peers": 3},
        *({"variant": variant} for variant in ("okddip_mean", "okddip_pairwise")),
    ],
    "fcfd": [{"mixed": "student_first"}, {"paths": 4}, {"mixed": "none"}],
    "fitnets": [{"stages": "two"}, {"relu": False}],
    "fsp": [{"main": True}],
    "ft": [{"variant": "paper"}],
    "hkd": [{"variant": "semckd_repo"}],
    "irg": [{"variant": "zoo"}],
    "kd": [{"standardise": True}, {"entropy_weighting": True}],
    "l2tww": [
        {"order": 1, "looks": 1, "where": "relu-avg"},
        {"looks": 1, "where": "const", "pairs": "0-1,1-1"},
    ],
    "mimic": [{"centre": True}, {"standardise": True}],
    "mlkd": [{"variant": "paper"}],
    "nkd": [{"variant": "sdd_repo"}, {"entropy_weighting": True}],
    "ofa": [{"eps": (1.5,)}],
    "ofd": [{"variant": "mdistiller"}],
    "okddip": [
        {"form": "network"},
        {"detach": "logits"},
        {"group_loss": "CE"},
        {"ensemble": True},
    ],
    "one": [{"variant": "okddip_repo"}],
    "rld": [{"standardise": True, "warmup": 0.0}],
    "sdd": [{"base": "kd"}, {"base": "nkd", "levels": 2}],
    "semckd": [
        *({"attention": how} for how in ("equal", "raw", "one_to_one", "hard", "shared")),
        {"attention": "straight_through"},
        {"projection": "linear"},
        {"soft": 0.5, "factor": 2},
    ],
    "skd": [{"variant": "plain"}],
    "tfkd": [{"form": "self"}],
    "ttm": [{"weighted": True}, {"standardise": True}, {"entropy_weighting": True}],
    "uskd": [{"variant": "paper"}],
    "wkd": [{"form": "feature"}, {"form": "logit+feature", "sharpen": 0.0}],
}

ALL = [(name, hyper) for name in lookup.names() for hyper in ({}, *OTHERS.get(name, []))]


def label(name: str, hyper: dict[str, Any]) -> str:
    """Return the id of a test."""
    return name + "".join(f"-{key}={value}" for key, value in hyper.items())
