"""References of methods: the file of entries, its parser, and references made from docstrings."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdbench.registry import describe, lookup, names, references
from kdbench.registry.description import RegistryError

BUILT_IN = [name for name in names() if not describe(name).external]
ENTRY = """@article{mine,
  author = {Doe, Jane},
  title = {A {CRD} of mine},
  journal = {A Journal},
  year = {2024},
  url = {https://arxiv.org/abs/2401.00001},
}
"""


def entries() -> dict[str, dict[str, str]]:
    path = lookup.folder() / references.FILE
    return {key: dict(fields) for key, fields in references.parse(path.read_text(), "").items()}


def test_every_method_has_an_entry_and_every_entry_a_method() -> None:
    with_paper = [name for name in BUILT_IN if references.year(describe(name).doc)]
    assert sorted(entries()) == with_paper == BUILT_IN
    assert list(entries()) == sorted(entries()), "entries are sorted by name"


@pytest.mark.parametrize("name", BUILT_IN)
def test_entry_agrees_with_the_docstring(name: str) -> None:
    entry, line = entries()[name], describe(name).doc
    assert entry["year"] == references.year(line)
    (preprint,) = re.findall(r"\d{4}\.\d{4,5}", line) or [""]
    if preprint:
        assert entry["url"] == f"https://arxiv.org/abs/{preprint}"
    else:
        assert "arxiv" not in entry["url"]
    first_author = entry["author"].partition(",")[0]
    assert re.search(rf"\({re.escape(first_author)}\b", line), (first_author, line)


def test_reference_of_a_built_in_method() -> None:
    crd = references.of_built_in("crd")
    assert crd is not None
    assert crd.links == (
        ("paper", "https://arxiv.org/abs/1910.10699"),
        ("code", "https://github.com/HobbitLong/RepDistiller"),
    )
    assert crd.bibtex == (
        "@inproceedings{tian2020crd,\n"
        "  author = {Tian, Yonglong and Krishnan, Dilip and Isola, Phillip},\n"
        "  title = {Contrastive Representation Distillation},\n"
        "  booktitle = {International Conference on Learning Representations},\n"
        "  year = {2020},\n"
        "  url = {https://arxiv.org/abs/1910.10699},\n"
        "}\n"
    )
    assert references.of_built_in("no such method") is None


def test_keys_of_copied_entries_are_distinct() -> None:
    found = [references.of_built_in(name) for name in BUILT_IN]
    keys = {reference.bibtex.partition("\n")[0] for reference in found if reference}
    assert len(keys) == len(BUILT_IN)


def test_file_without_entries_for_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "folder", lambda: tmp_path)
    assert references.of_built_in("kd") is None
    (tmp_path / references.FILE).write_text(ENTRY)
    assert references.of_built_in("kd") is None
    assert references.of_built_in("mine") is not None
    (tmp_path / references.FILE).write_text("nonsense")
    with pytest.raises(RegistryError, match=r"references\.bib:1: expected"):
        references.of_built_in("mine")


def test_parsed_entry() -> None:
    assert references.parse(f"% a comment\n\n{ENTRY}", "file") == {
        "mine": {
            "kind": "article",
            "author": "Doe, Jane",
            "title": "A {CRD} of mine",
            "journal": "A Journal",
            "year": "2024",
            "url": "https://arxiv.org/abs/2401.00001",
        }
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@article{mine,", "@article{mine", r"file:1: expected `@kind\{key,`, not '@article\{mine"),
        ("@article", "@misc", "file:7: unknown kind misc; accepted: inproceedings, article"),
        ("  year = {2024},", "  year = 2024,", r"file:5: expected `  field = \{value\},` or `\}`"),
        ("{2024}", "{24}", "file:7: year is '24', expected four digits"),
        ("  year = {2024},\n", "", "file:6: no year; fields: author, title, year"),
        ("  journal = {A Journal},\n", "", "file:6: no journal"),
        ("  year", "  month", "file:7: unknown field month"),
        ("  year = {2024},", "  author = {Me},", "file:5: a second author"),
        ("https:", "http:", "file:7: url is 'http://arxiv.org.*', expected a https:// link"),
        ("{CRD}", "{CRD", "file:7: title has a backslash or unbalanced braces"),
        ("{CRD}", "}CRD{", "file:7: title has a backslash or unbalanced braces"),
        ("{CRD}", r"\input", "file:7: title has a backslash or unbalanced braces"),
        ("\n}\n", "\n", "file:6: the entry of mine does not end"),
        ("\n}\n", f"\n}}\n{ENTRY}", "file:8: a second entry of mine"),
    ],
)
def test_wrong_entry(old: str, new: str, message: str) -> None:
    assert old in ENTRY
    with pytest.raises(RegistryError, match=f"^{message}"):
        references.parse(ENTRY.replace(old, new, 1), "file")


def test_reference_from_a_docstring() -> None:
    line = "Matching of logits (Doe & Roe, CVPR 2024, arXiv:2401.00001, https://github.com/doe/x)."
    made = references.of_docstring("mine", line)
    assert made.links == (
        ("paper", "https://arxiv.org/abs/2401.00001"),
        ("code", "https://github.com/doe/x"),
    )
    assert made.bibtex == (
        "@misc{mine2024,\n"
        "  title = {Matching of logits},\n"
        "  note = {Doe \\& Roe, CVPR 2024, arXiv:2401.00001, https://github.com/doe/x},\n"
        "  year = {2024},\n"
        "  url = {https://arxiv.org/abs/2401.00001},\n"
        "}\n"
    )
    assert references.of_docstring("mine", "") == references.Reference()
    plain = references.of_docstring("mine", "An idea.")
    assert plain == references.Reference((), "@misc{mine,\n  title = {An idea},\n}\n")


@pytest.mark.parametrize(
    ("line", "links"),
    [
        ("Mine (doi:10.1109/CVPR.2017.754).", ["https://doi.org/10.1109/CVPR.2017.754"]),
        ("Mine (https://doi.org/10.1109/X.1).", ["https://doi.org/10.1109/X.1"]),
        ("Mine (ARXIV: 2012.03236v2)", ["https://arxiv.org/abs/2012.03236"]),
        ("arXiv:2012.03236 https://arxiv.org/abs/2012.03236", ["https://arxiv.org/abs/2012.03236"]),
        ("Mine (https://a.org/b?id=c_d).", ["https://a.org/b?id=c_d"]),
        ("http://a.org javascript:alert(1) ftp://a.org //a.org", []),
        ("https://user@a.org https://a.org:1/ https://a.org/\u202e https://a", []),
        ("https://a.org/" + "x" * references.LONGEST, []),
        ("arXiv:12345.6789 10.12/x", []),
    ],
)
def test_links_of_a_docstring(line: str, links: list[str]) -> None:
    assert [link for _, link in references.of_docstring("mine", line).links] == links


@pytest.mark.parametrize(
    ("line", "year"),
    [
        ("Mine (CVPR 2019, pp. 2000-2010).", "2019"),
        ("Mine (Somebody, arXiv:2012.03236).", "2020"),
        ("Mine (arXiv:2012.03236; TKDE 2022).", "2022"),
        ("Mine (doi:10.1109/CVPR.2017.754).", ""),
        ("Mine in 12019 steps.", ""),
    ],
)
def test_year_of_a_docstring(line: str, year: str) -> None:
    assert references.year(line) == year


HOSTILE = st.text(st.sampled_from("ab1 (){}\\@%&$#_~^\"'<>,=\n\r\t\0\u202e/:.-h") | st.characters())


@given(HOSTILE, HOSTILE)
@example("}", "}\n@string{x = {\\input{/etc/passwd}}}\n\\write18{id} https://a.org/}\\x")
@example("mine", "arXiv:2012.03236} https://a.org/<script> 10.1000/}{")
def test_hostile_docstrings_stay_inside_their_entry(name: str, line: str) -> None:
    made = references.of_docstring(name, line)
    for text, link in made.links:
        assert text in ("paper", "code") and references.safe_link(link) == link
    if not made.bibtex:
        assert not made.links
        return
    head, *fields, end, nothing = made.bibtex.split("\n")
    assert re.fullmatch(r"@misc\{[A-Za-z0-9_]+,", head) and (end, nothing) == ("}", "")
    for field in fields:
        value = re.fullmatch(r"  (?:title|note|year|url) = \{(.*)\},", field)
        assert value, field
        rest = re.sub(r"\\[&%$#_]", "", value[1])
        assert not re.search(r"[\\{}]", rest), field
        assert "url = " in field or not re.search(r"[&%$#_~^]", rest), field
        assert rest.isprintable()
