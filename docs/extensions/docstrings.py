"""Docstrings as this project writes them, for Sphinx: Markdown in prose and tables, formulas as indented blocks."""

from __future__ import annotations

import re
from typing import Any

LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
ARRAY = re.compile(r"~?(jax\.)?jaxlib\._jax\.Array")
KEY = re.compile(r"\S*\bKey\[Array, ''\] \| \S*\bUInt32\[Array, '2'\] \| \S*\bUInt32\[Array, '4'\]")
"""What jaxtyping's PRNGKeyArray stands for."""
SECTION = re.compile(r"\s*(Args|Attributes|Raises|Returns|Yields):$")


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _convert, priority=400)  # napoleon, at 500, finds its sections as they are
    app.connect("autodoc-process-docstring", _name_types, priority=600)  # which napoleon added to attributes
    app.connect("autodoc-process-signature", _sign)
    return {"parallel_read_safe": True}


def _sign(
    app: Any, what: str, name: str, thing: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    return readable(arguments), readable(returned)


def readable(annotations: str | None) -> str | None:
    """Annotations with the names that one would import, in place of what these stand for."""
    return annotations and KEY.sub("PRNGKeyArray", ARRAY.sub("Array", annotations))


def _name_types(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [readable(line) or "" for line in lines]


def _convert(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured(lines)


def restructured(lines: list[str]) -> list[str]:
    """The lines of a docstring in reStructuredText, the sections of napoleon left to it.

    A block indented by four beyond the text before it is a formula, and stays as it is, after a blank line, and a list
    without one; lines that start with a bar are a table; all else is prose, in which only code between backticks has a
    meaning.
    """
    written: list[str] = []
    table: list[str] = []
    base, formula, items = 0, False, False
    for line in [*lines, ""]:
        if line.lstrip().startswith(("| ", "|-")):
            table.append(line)
            continue
        if table:
            written += _table(table)
            table = []
        indent = len(line) - len(line.lstrip())
        if not line:
            written.append("")
        elif SECTION.match(line):
            base, formula, items = indent + 4, False, False
            written.append(line)
        else:
            base = base if indent >= base else 0
            after_blank = not any(written[-1:])
            if indent >= base + 4 and after_blank and not (formula or items):
                written += [" " * base + "::", ""]
                formula = True
            elif indent == 4 and base == 0 and not (formula or items or after_blank):
                written.append("")
                items = True
            formula, items = formula and indent >= base + 4, items and indent >= 4
            if items:
                line = f"{'    - ' if indent == 4 else '      '}{line.strip()}"
            written.append(line if formula else prose(line))
    return written


def prose(text: str) -> str:
    """Text in which nothing is markup but code between backticks."""
    parts = LITERAL.split(text)
    plain = [re.sub(r"[\\*|`]|(?<=\w)_(?!\w)", lambda found: "\\" + found[0], part) for part in parts[::2]]
    code = [f"``{part.strip('`')}``" for part in parts[1::2]]
    joined = plain[0]
    for literal, after in zip(code, plain[1:], strict=True):
        joined += literal + ("\\" if after[:1].isalnum() else "") + after  # a literal may not end inside a word
    return joined


def _table(lines: list[str]) -> list[str]:
    indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
    rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines if "|---" not in line]
    written = ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in rows:
        cells = [*row, *[""] * (max(map(len, rows)) - len(row))]
        written += [f"{indent}   {' ' if place else '*'} - {prose(cell)}".rstrip() for place, cell in enumerate(cells)]
    return [*written, ""]
