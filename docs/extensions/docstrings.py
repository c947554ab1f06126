"""Docstrings as this project writes them, for Sphinx: Markdown in prose and tables, formulas as indented blocks."""

from __future__ import annotations

import re
from typing import Any

LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
SECTION = re.compile(r"\s*(Args|Attributes|Raises|Returns|Yields):$")


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _convert, priority=400)  # napoleon, at 500, finds its sections as they are
    return {"parallel_read_safe": True}


def _convert(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured(lines)


def restructured(lines: list[str]) -> list[str]:
    """The lines of a docstring in reStructuredText, the sections of napoleon left to it.

    A block indented by four beyond the text before it, after a blank line, is a formula and stays as it is; lines that
    start with a bar are a table; all else is prose, in which only code between backticks has a meaning.
    """
    written: list[str] = []
    table: list[str] = []
    base, formula = 0, False
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
            base, formula = indent + 4, False
            written.append(line)
        else:
            base = base if indent >= base else 0
            starts = indent >= base + 4 and not any(written[-1:])
            if starts and not formula:
                written += [" " * base + "::", ""]
            formula = indent >= base + 4 and (formula or starts)
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
