"""All builders of golden cases: those of every module ``golden_cases*.py`` of this folder."""

import importlib
from pathlib import Path

from golden_files import Builder

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("golden_cases*.py"))

BUILDERS: dict[str, Builder] = {}
"""The builder of each method's golden cases, by the name of its folder."""

for _module in MODULES:
    _found: dict[str, Builder] = importlib.import_module(_module).BUILDERS
    _twice = BUILDERS.keys() & _found.keys()
    if _twice:
        raise ValueError(f"{_module}: {', '.join(sorted(_twice))} has another builder")
    BUILDERS |= _found
