"""What there is: methods, models, data sets, and this machine; for the commands that list them."""

import os
import shutil
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench import environment, registry
from kdbench import models as zoo
from kdbench.errors import UserError
from kdbench.grid import presets
from kdbench.spec import DATASETS


def methods(pair: str | None) -> Group:
    """Every method: paper, hyper-parameters, default weight; its own cost on a pair if given."""
    columns = ["method", "beta", "phase before", "hyper-parameters", "paper"]
    extra = _extra(pair) if pair else {}
    table = Table(*columns, *(["parameters", "MMAC an image"] if pair else []))
    for name in registry.names():
        about = registry.describe(name)
        hyper = ", ".join(f"{key}={value!r}" for key, value in about.hyper.items())
        row = [name, f"{about.beta:g}", "yes" if about.has_pretrain else "", hyper, about.doc]
        table.add_row(*(Text(cell) for cell in [*row, *extra.get(name, [])]))
    told = "extra parameters and MACs of the term itself, at 32x32, 100 classes" if pair else ""
    return Group(table, Text(told)) if told else Group(table)


def _extra(pair: str) -> dict[str, list[str]]:
    """Method -> parameters and MACs it adds on a pair, or the reason why it cannot work there."""
    from kdbench import estimate
    from kdbench.run import Term

    teacher, arrow, student = (part.strip() for part in pair.partition("->"))
    for name in (teacher, student):
        if not arrow or not zoo.known(name):
            raise UserError(f"--pair {pair}: expected 'TEACHER -> STUDENT', two known models")
    of = estimate.Shape(3, 32, 100, 50000, 10000)
    found = {}
    for name in registry.names():
        terms = (Term(name, 1.0, registry.describe(name).hyper),)
        extra = estimate.terms_cost(student, teacher, of, 64, terms)
        if extra.incompatible:
            found[name] = [extra.incompatible, ""]
        else:
            found[name] = [f"{extra.parameters:,}", f"{extra.macs / 1e6:,.1f}"]
    return found


def models() -> Group:
    """Every architecture, with parameters and MACs at 32x32 and 100 classes."""
    from kdbench.models import cost

    table = Table("model", "family", "parameters", "MMAC")
    import torch

    for name in zoo.names():
        with torch.device("meta"):
            size = cost.params(zoo.create(name))
        macs = cost.macs(name, 3, 32, 100)
        table.add_row(name, zoo.family(name), f"{size:,}", f"{macs / 1e6:,.1f}")
    scaled = "and by the same code any rDwW (r8w16), vDwW (v5w4), resnetD, resnetDxK, wrn_D_K"
    return Group(table, Text(scaled))


def datasets(root: Path) -> Group:
    """Every data set: there, or where to put which file."""
    from kdbench.datasets import available

    table = Table("data set", "channels, pixels, classes", "state")
    for name, shape in DATASETS.items():
        there, about = available(name, root)
        size = ", ".join(map(str, shape)) if shape else "as the folder says"
        table.add_row(name, size, Text(f"{'there' if there else 'missing'}: {about}"))
    return Group(table)


def doctor(runs: Path, data: Path) -> Group:
    """Machine, devices, versions, data, disk."""
    import torch

    about = environment.describe("", torch.get_num_threads())
    table = Table("what", "found", show_header=False)
    for name, version in environment.versions().items():
        table.add_row(name, version)
    code = about.get("commit")
    table.add_row("code", f"{code}{' (changed)' if about.get('dirty') else ''}" if code else "-")
    table.add_row("processor", f"{about['processor']}, {len(os.sched_getaffinity(0))} cores usable")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("GPUs", ", ".join(gpus) or "none: runs are trained on the CPU, one worker a core")
    bf16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    table.add_row("bf16 on this CPU", "fast" if bf16 else "slow: leave precision at fp32")
    slurm = shutil.which("sbatch")
    table.add_row("Slurm", slurm or "not found: grids run on this machine")
    place = runs if runs.exists() else Path()
    free = shutil.disk_usage(place).free / 2**30
    writable = "writable" if os.access(place, os.W_OK) else "NOT WRITABLE"
    table.add_row("runs", f"{runs.resolve()}: {writable}, {free:,.0f} GiB free")
    table.add_row("protocols", ", ".join(presets()))
    return Group(table, datasets(data))
