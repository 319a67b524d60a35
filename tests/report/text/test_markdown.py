import pandas as pd
import pytest

from kdbench.report.tables.table import Table
from kdbench.report.text.markdown import escape, render


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", r"a \| b"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("[x](javascript:y)", r"[x\](javascript:y)"),
        ("wrn_40_2", "wrn_40_2"),
        ("_so_", r"\_so\_"),
        ("**bold** `code`", r"\*\*bold\*\* \`code\`"),
        ("two\nlines\t here", "two lines here"),
        ("back\\slash", r"back\\slash"),
        ("p < 0.05 & a -> b", "p < 0.05 & a -> b"),
        ("&lt;b&gt; &#60;", "&amp;lt;b&amp;gt; &amp;#60;"),
        ("<!-- x", "&lt;!-- x"),
        ("[a]: http://b", r"[a\]: http://b"),
        ("# a", r"\# a"),
        ("> a", r"\> a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("-2.26 [-2.50, -2.02]", "-2.26 [-2.50, -2.02]"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_markdown_escapes_every_cell_heading_and_note() -> None:
    rows = pd.DataFrame({"A|B": ["<b>"], "C": ["x|y"]})
    text = render(Table("T|<i>", rows, frozenset({(0, "C")}), ("n<o>te",)))
    assert text.splitlines() == [
        r"## T\|&lt;i>", "", r"| A\|B | C |", "| --- | ---: |", r"| &lt;b> | **x\|y** |", "",
        "n&lt;o>te",
    ]  # fmt: skip
