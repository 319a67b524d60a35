"""``kdbench.blocks``, the deprecated name of ``kdbench.tensors``, still works for plugins."""

import inspect
from pathlib import Path

from click.testing import CliRunner

import kdbench.blocks
from kdbench import tensors
from kdbench.cli import main

PLUGIN = '''"""A plugin that uses the old name (Somebody, 2024)."""

from kdbench.blocks import kl, pairs, same_size
from kdbench.method import Method


class Old(Method):
    family = "feature map"

    def __init__(self, setup, *, temperature=4.0):
        super().__init__(setup)
        self.temperature = temperature

    def loss(self, s, t, batch):
        term = kl(s.logits, t.logits, self.temperature)
        for a, b in pairs(s.stages, t.stages):
            a, b = same_size(a.mean(1, keepdim=True), b.mean(1, keepdim=True))
            term = term + (a - b).square().mean()
        return term
'''


def test_every_public_function_is_exported() -> None:
    public = {
        name: function
        for name, function in vars(tensors).items()
        if inspect.isfunction(inspect.unwrap(function))
        and function.__module__ == tensors.__name__
        and not name.startswith("_")
    }
    assert {"pairs", "gram", "kl", "hint_regressor"} <= set(public)
    for name, function in public.items():
        assert getattr(kdbench.blocks, name) is function


def test_plugin_importing_the_old_name_passes_all_checks(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(PLUGIN)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert "fail" not in result.output.lower()
