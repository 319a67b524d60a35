"""The report of ``kdbench doctor``."""

import os
import shutil
from pathlib import Path

from rich.console import Group
from rich.table import Column

from kdbench.cli.catalogue import datasets, new_table
from kdbench.cost import saved_tuning
from kdbench.execution.slurm import doctor as slurm
from kdbench.grid.yaml_tree import presets
from kdbench.runs import environment


def doctor(runs: Path, data: Path) -> Group:
    """Describe the machine, devices, versions, data and disk."""
    import torch

    from kdbench.cli import doctor_gpu
    from kdbench.cost.tune import has_amx

    machine = environment.describe(
        "", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    )
    table = new_table(Column("item", no_wrap=True), "state")
    table.show_header = False
    for name, version in environment.versions().items():
        table.add_row(name, version)
    code = machine.get("commit")
    table.add_row("code", f"{code}{' (changed)' if machine.get('dirty') else ''}" if code else "-")
    table.add_row("processor", f"{machine['processor']}, {environment.cores()} cores usable")
    limit = machine["onednn_limit"]
    onednn = f"limit set to {limit}" if limit else "no limit"
    capability = machine["cpu_capability"]
    table.add_row("vector instructions", f"{capability}; convolutions (oneDNN): {onednn}")
    for item, state in doctor_gpu.lines():
        table.add_row(item, state)
    tuning = saved_tuning.load()
    if tuning:
        table.add_row("cores, measured", f"executor: {tuning.best()}, for {tuning.subject}")
        table.add_row(
            "bf16, measured",
            saved_tuning.precision_advice(tuning.bf16, "this processor", has_amx()),
        )
    else:
        advice = (
            "may be faster" if has_amx() else "rarely faster without AMX: keep precision at fp32"
        )
        table.add_row("bf16 on this CPU", f"{advice}; kdbench doctor --tune measures it")
    for item, state in slurm.lines():
        table.add_row(item, state)
    table.add_row("runs", _folder(runs))
    table.add_row("protocols", ", ".join(presets()))
    return Group(table, datasets(data))


def _folder(runs: Path) -> str:
    """Describe the folder of runs: whether it is writable, and its free space."""
    nearest = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    if not nearest.is_dir():
        return f"{runs.resolve()}: NOT A FOLDER: {nearest} is a file"
    free = shutil.disk_usage(nearest).free / 2**30
    writable = "writable" if os.access(nearest, os.W_OK) else "NOT WRITABLE"
    return f"{runs.resolve()}: {writable}, {free:,.0f} GiB free"
