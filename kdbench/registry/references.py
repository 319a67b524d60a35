"""References of methods: BibTeX entries and links.

Built-in methods have an entry in ``methods/references.bib``. For other methods, a reference is made
from the first line of their file's docstring. That line may come from anybody's records, so only
links of a strict form are returned, and the entry contains no LaTeX commands of the line.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kdbench.errors import one_line
from kdbench.registry import lookup
from kdbench.registry.description import RegistryError

FILE = "references.bib"
VENUES = {"inproceedings": "booktitle", "article": "journal"}
"""Kind of an entry -> the field that names where the paper was published."""
NEEDED = ("author", "title", "year", "url")
FIELDS = (*NEEDED, *VENUES.values(), "pages", "code")
"""Fields that an entry may have. ``code`` is the authors' repository, no field of BibTeX."""
HOSTS_OF_CODE = ("github.com", "gitlab.com", "bitbucket.org", "codeberg.org")
LONGEST = 300
"""Characters of a docstring's line that are used, and of a link."""

_HEAD = re.compile(r"@([a-z]+)\{([A-Za-z0-9_]+),")
_FIELD = re.compile(r"  ([a-z]+) = \{(.+)\},")
_LINK = re.compile(r"https://[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?:/[A-Za-z0-9._~/?=&%#+-]*)?")
_ARXIV = re.compile(r"arxiv:\s*(\d{4}\.\d{4,5})(?!\d)", re.IGNORECASE)
_DOI = re.compile(r"(?<![\w.])10\.\d{4,9}/[A-Za-z0-9._/-]*[A-Za-z0-9]")
_YEAR = re.compile(r"(?<![\d.:/])(?:19|20)\d\d(?![\d/]|\.\d)")
_ESCAPED = str.maketrans({char: rf"\{char}" for char in "&%$#_"} | dict.fromkeys(r"\{}~^", " "))


@dataclass(frozen=True)
class Reference:
    """How a method is cited.

    Attributes:
        links: what a link leads to (``paper`` or ``code``) and its address.
        bibtex: an entry that ends with a line break; empty if nothing is known.
    """

    links: tuple[tuple[str, str], ...] = ()
    bibtex: str = ""


def of_built_in(name: str) -> Reference | None:
    """Return the reference of a built-in method; None if it has no entry.

    Raises:
        RegistryError: the file of entries is damaged.
    """
    path = lookup.folder() / FILE
    try:
        return _read(path, path.stat().st_mtime_ns).get(name)
    except OSError:
        return None


def of_docstring(name: str, line: str) -> Reference:
    """Make a reference from a docstring's first line, ``Idea (Author, VENUE YEAR, link)`` or alike.

    Args:
        name: of the method.
        line: may contain ``arXiv:`` with an id, a DOI, and https links.
    """
    if len(line) > LONGEST:
        line = line[:LONGEST].rpartition(" ")[0]  # no part of a link
    links = _links_in(line)
    line = _printable(line)
    if not line:
        return Reference()
    title, _, rest = line.rstrip(".").partition(" (")
    url = next((link for text, link in links if text == "paper"), "")
    fields = {"title": title, "note": rest.rstrip(") "), "year": year(line)}
    # Links contain no character that ends an entry.
    texts = {key: " ".join(value.translate(_ESCAPED).split()) for key, value in fields.items()}
    return Reference(links, _entry("misc", _key("", fields["year"], name), texts | {"url": url}))


def year(line: str) -> str:
    """Return the first year in a docstring's line, else that of its arXiv id; empty if none."""
    found = _YEAR.search(line)
    if found:
        return found[0]
    preprint = _ARXIV.search(line)
    return f"20{preprint[1][:2]}" if preprint else ""


def safe_link(text: str) -> str:
    """Return the text if it is a https link of letters, digits and a few signs, else nothing."""
    return text if len(text) <= LONGEST and _LINK.fullmatch(text) else ""


def parse(text: str, source: str) -> dict[str, Mapping[str, str]]:
    """Parse entries of one field a line, as ``methods/references.bib`` has them.

    Args:
        text: ``@kind{key,``, lines ``  field = {value},`` and ``}`` for each entry; empty lines and
            comments (``%``) between them.
        source: name of the file, for messages.

    Returns:
        Key -> fields, with the entry's kind as ``kind``.

    Raises:
        RegistryError: a line has another form, or an entry lacks a field or has a wrong one.
    """
    entries: dict[str, Mapping[str, str]] = {}
    key, fields, where = "", dict[str, str](), source
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{source}:{number}"
        head, field = _HEAD.fullmatch(line), _FIELD.fullmatch(line)
        if not key and head:
            key, fields = head[2], {"kind": head[1]}
            if key in entries:
                raise RegistryError(f"{where}: a second entry of {key}")
        elif key and field:
            if field[1] in fields:
                raise RegistryError(f"{where}: a second {field[1]}")
            fields[field[1]] = field[2]
        elif key and line == "}":
            _check(fields, where)
            entries[key], key = fields, ""
        elif key or (line.strip() and not line.startswith("%")):
            expected = "`  field = {value},` or `}`" if key else "`@kind{key,`"
            raise RegistryError(f"{where}: expected {expected}, not {one_line(line)[:60]!r}")
    if key:
        raise RegistryError(f"{where}: the entry of {key} does not end")
    return entries


def _check(fields: Mapping[str, str], where: str) -> None:
    kind = fields["kind"]
    if kind not in VENUES:
        raise RegistryError(f"{where}: unknown kind {kind}; accepted: {', '.join(VENUES)}")
    unknown = [name for name in fields if name not in ("kind", *FIELDS)]
    missing = [name for name in (*NEEDED, VENUES[kind]) if name not in fields]
    if unknown or missing:
        problem = f"unknown field {unknown[0]}" if unknown else f"no {missing[0]}"
        raise RegistryError(f"{where}: {problem}; fields: {', '.join(FIELDS)}")
    if not re.fullmatch(r"(?:19|20)\d\d", fields["year"]):
        raise RegistryError(f"{where}: year is {fields['year']!r}, expected four digits")
    for name in ("url", "code"):
        if name in fields and not safe_link(fields[name]):
            raise RegistryError(f"{where}: {name} is {fields[name]!r}, expected a https:// link")
    for name, value in fields.items():
        if "\\" in value or not _balanced(value):
            raise RegistryError(f"{where}: {name} has a backslash or unbalanced braces")


def _balanced(value: str) -> bool:
    depth = 0
    for char in value:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


@lru_cache(maxsize=4)
def _read(path: Path, modified: int) -> dict[str, Reference]:
    """Read the file of entries; ``modified`` is its modification time, part of the cache key."""
    references = {}
    for name, fields in parse(path.read_text(encoding="utf-8"), str(path)).items():
        links = [("paper", fields["url"])]
        links += [("code", fields["code"])] if "code" in fields else []
        key = _key(fields["author"].partition(",")[0], fields["year"], name)
        shown = {field: value for field, value in fields.items() if field not in ("kind", "code")}
        references[name] = Reference(tuple(links), _entry(fields["kind"], key, shown))
    return references


def _links_in(line: str) -> tuple[tuple[str, str], ...]:
    """Return the links of a line; several to one address are one."""
    arxiv, doi = _ARXIV.search(line), _DOI.search(line)
    links = {}
    if arxiv:
        links[f"https://arxiv.org/abs/{arxiv[1]}"] = "paper"
    if doi:
        links[f"https://doi.org/{doi[0]}"] = "paper"
    for word in re.findall(r"https://[^\s,;()<>\[\]\"']+", line):
        link = safe_link(word.rstrip("."))
        host = link.removeprefix("https://").partition("/")[0].lower()
        if link and not (doi and link.endswith(doi[0])):
            links.setdefault(link, "code" if host in HOSTS_OF_CODE else "paper")
    return tuple((text, link) for link, text in links.items())


def _key(author: str, year: str, name: str) -> str:
    """Return a key that no other entry of a bibliography is likely to have: ``hinton2014kd``."""
    ascii_only = unicodedata.normalize("NFKD", author).encode("ascii", "ignore").decode()
    parts = (ascii_only.lower(), year, name) if author else (name, year)
    return re.sub(r"[^A-Za-z0-9_]", "", "".join(parts)) or "method"


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n{''.join(lines)}}}\n"


def _printable(line: str) -> str:
    """Return a line without control characters and repeated blanks."""
    kept = "".join(char if char.isprintable() else " " for char in line)
    return " ".join(kept.split())
