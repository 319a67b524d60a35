"""Tables of methods, models and data sets, for the commands that list them."""

from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from kdbench.errors import UserError
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.yaml_tree import preset, presets
from kdbench.models import zoo
from kdbench.registry import lookup


def methods(pair: str | None) -> Group:
    """List methods with paper, hyper-parameters and default weight, and their cost on a pair."""
    costs = _costs_on_pair(pair) if pair else {}
    cost_columns = Column("parameters", justify="right"), Column("MMAC per image", justify="right")
    table = new_table(
        Column("method", no_wrap=True),
        Column("beta", justify="right"),
        *(cost_columns if pair else ()),
        "paper; hyper-parameters",
    )
    for name in lookup.names():
        about = lookup.describe(name)
        hyper = ", ".join(f"{key}={value!r}" for key, value in about.hyper.items())
        needs = [
            *([] if about.needs_teacher else ["no teacher"]),
            *(["networks learn together"] if about.brings_peers else []),
            *(["looks ahead, with SGD only"] if about.looks_ahead else []),
            *(["one rank"] if about.one_rank else []),
            *(["pretraining phase"] if about.has_pretrain else []),
            *([] if about.capturable else ["no CUDA graph, so slow on a GPU"]),
            *(f"{key} {value:g}" for key, value in about.objective.items()),
        ]
        text = Text(about.doc)
        *cost, reason = costs.get(name, [""])
        kind = f"{about.family}; reads {', '.join(about.uses)}"
        for line in (kind, hyper, "; ".join(needs), _preset_betas(name, about.beta), reason):
            text.append(f"\n{line}" if line else "", style="dim")
        row = [name, f"{about.beta:g}", *cost]
        table.add_row(*map(Text, row), text)
    sources = [f"protocol {name}: {preset(name).get('source', '')}" for name in presets()]
    lines = ["sources of the protocols' weights:", *sources]
    lines += ["parameters and MACs: of the method's term, at 32x32 and 100 classes"] if pair else []
    return Group(table, *(Text(line) for line in lines))


def _preset_betas(name: str, default: float) -> str:
    """Describe the weight of the term under protocols that change the default."""
    weights = []
    for protocol in presets():
        beta = preset(protocol).get("methods", {}).get(name, {}).get("beta", default)
        weights += [f"{protocol} {beta:g}"] if beta != default else []
    return f"beta under {', '.join(weights)}" if weights else ""


def _costs_on_pair(pair: str) -> dict[str, list[str]]:
    """Return the parameters and MACs that each method adds, or the reason if it is incompatible."""
    from kdbench.cost.counting import DataShape
    from kdbench.cost.estimate import Estimator
    from kdbench.grid.run import Term

    teacher, arrow, student = (part.strip() for part in pair.partition("->"))
    for name in (teacher, student):
        if not arrow or not zoo.known(name):
            expected = "'TEACHER -> STUDENT', names from `kdbench models`"
            raise UserError(f"--pair {pair}: expected {expected}")
    shape = DataShape(3, 32, 100, 50000, 10000)
    estimator = Estimator()
    costs = {}
    for name in lookup.names():
        terms = (Term(name, 1.0, lookup.describe(name).hyper),)
        extra, _ = estimator.terms(student, teacher, shape, 64, terms)
        if extra.incompatible:
            costs[name] = ["-", "-", extra.incompatible]
        else:
            costs[name] = [f"{extra.parameters:,}", f"{extra.macs / 1e6:,.1f}", ""]
    return costs


def models() -> Group:
    """List architectures with parameters and MACs at 32x32 and 100 classes."""
    import torch

    from kdbench.models import size as cost

    table = new_table(
        Column("model", no_wrap=True),
        Column("family", no_wrap=True),
        Column("parameters", justify="right"),
        Column("MMAC", justify="right"),
    )
    for name in zoo.names():
        with torch.device("meta"):
            network, image = zoo.create(name), torch.empty(1, 3, 32, 32)
        size, macs = cost.params(network), cost.module_macs(network, image)
        table.add_row(name, zoo.family(name), f"{size:,}", f"{macs / 1e6:,.1f}")
    scaled = "any other size works, too: rDwW (r8w16), vDwW (v5w4), resnetD, resnetDxK, wrn_D_K"
    return Group(table, Text(scaled))


def datasets(root: Path) -> Table:
    """List data sets and whether they are available; ``missing`` says how to get the others."""
    from kdbench.data.readers.by_name import available

    table = new_table(Column("data set", no_wrap=True), "channels, pixels, classes", "state")
    for name, facts in DATASETS.items():
        is_available, about = available(name, root)
        size = ", ".join(map(str, facts.shape)) if facts.shape else "from the folder"
        table.add_row(name, size, Text(f"available: {about}" if is_available else "missing"))
    return table


def missing_datasets(root: Path) -> str:
    """Say where to put which file, a line for each missing data set; no path is broken."""
    from kdbench.data.readers.by_name import available

    found = {name: available(name, root) for name in DATASETS}
    return "\n".join(f"{name}: {about}" for name, (there, about) in found.items() if not there)


def new_table(*columns: str | Column) -> Table:
    """Return an empty table in the style of these lists."""
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
