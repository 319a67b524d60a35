"""README, CONTRIBUTING, CHANGELOG and docs: every path, link and module that they name exists."""

import configparser
import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, SNIPPETS, prose, table

from kdbench.registry import lookup

STRUCTURE = (ROOT / "docs" / "structure.md").read_text()
FOLDERS = (
    *("kdbench", "methods", "experiments", "tests", "docs", "benchmarks", "notebooks", "results"),
    ".ci",
)
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./<>*-]*[\w/>*]")
MADE_BY_READER = {
    "methods/mine.py", "tests/methods/test_mine.py", "experiments/mine.yaml",
    "results/mine", "results/analyses/NAME", "results/transfer",
}  # fmt: skip
"""Paths of examples, and of files that a command in the text writes."""


def exists(path: str) -> bool:
    """Check a path up to its first placeholder (``NAME``, ``test_NAME``, ``<grid>``, ``*``)."""
    if path.strip("/") in MADE_BY_READER:
        return True
    where = ROOT
    for part in path.strip("/").split("/"):
        if re.search(r"<|[A-Z]{4}", part) and not (where / part).exists():
            return where.is_dir()
        if "*" in part:
            return any(where.glob(part))
        where /= part
    return where.exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", page.read_text())
    missing = {path for path in PATH.findall(text) if not exists(path)}
    assert not missing


def test_missing_path_is_detected() -> None:
    for path in ("kdbench/grid/nothing.py", "nothing/NAME.py", "experiments/none_*.yaml"):
        assert not exists(path)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


# --- statements about the code --------------------------------------------------------------------


def test_structure_names_every_package_and_top_level_module() -> None:
    for init in (ROOT / "kdbench").rglob("__init__.py"):
        assert f"`{init.parent.relative_to(ROOT)}/`" in STRUCTURE
    modules = {path.name for path in (ROOT / "kdbench").glob("[!_]*.py")} - {"blocks.py"}
    assert modules <= set(re.findall(r"`(\w+\.py)`", STRUCTURE))


def test_files_named_in_structure_are_in_their_folder() -> None:
    for folder, contents, *_ in table(STRUCTURE, "folder", "contents"):
        for name in re.findall(r"`([\w.]+(?:\.\w+|/))`", contents):
            if not name.startswith("kdbench."):
                assert (ROOT / folder.strip("`") / name).exists(), f"{folder}: {name}"


def test_structure_shows_the_layers() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    layers = config["importlinter:contract:layers"]["layers"].replace("kdbench.", "").strip()
    texts = [s.text for s in SNIPPETS if s.page.name == "structure.md" and s.language == "text"]
    assert texts[1].strip() == layers


def test_methods_listed_without_golden_vectors_have_none() -> None:
    text = (ROOT / "docs" / "numbers.md").read_text()
    match = re.search(r"There are none for (.*?)\. Every", text, re.S)
    assert match
    listed = set(re.findall(r"`(\w+)`", match[1]))
    golden = {path.name for path in (ROOT / "tests" / "golden").iterdir() if path.is_dir()}
    assert listed and listed <= set(lookup.names()) - golden


def target(name: str) -> object:
    """Import a module, or a name of a module."""
    if importlib.util.find_spec(name.rpartition(".")[0]) is None:
        raise ModuleNotFoundError(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def test_new_names_in_the_changelog_exist_and_old_names_do_not() -> None:
    for old, new, *_ in table((ROOT / "CHANGELOG.md").read_text(), "old", "new"):
        assert target(new.strip("`"))
        if old not in ("`kdbench.data`", "`kdbench.grid`"):  # are packages now
            with pytest.raises((ModuleNotFoundError, AttributeError)):
                target(old.strip("`"))


def test_public_names_are_importable() -> None:
    for name in ("method", "registry.load", "models.create", "stats.mean", "tensors", "blocks"):
        assert target(f"kdbench.{name}")
    assert target("kdbench.blocks.unit_rows") is target("kdbench.tensors.unit_rows")
