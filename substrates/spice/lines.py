"""The lines of a netlist, of its own and of files that it includes: comments off, continuations joined, cut in tokens.

What makes a line is limited, so that reading takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from substrates.spice.expression import show

MAX_CHARACTERS = 64 * 2**20
MAX_LINES = 2_000_000
MAX_LINE_LENGTH = 2_000
MAX_CONTINUATIONS = 100
MAX_TOKEN_LENGTH = 64
MAX_INCLUDES = 16

COMMENT = re.compile(r";|(?:^|(?<=\s))(?:\$(?=\s|$)|//)")
NOTE = re.compile(r"\*\s*groundstate\s+([a-z]+):(.*)", re.IGNORECASE)
NOTES = ("inputs", "outputs", "nodes", "ideal", "open")
FORBIDDEN = re.compile(r"[^ -~\t]|[`\\]")
TOKEN = re.compile(r"=|\{[^{}]*\}|'[^']*'|\"[^\"]*\"|[^\s=(),{}'\"]+|[{}'\"]")
FILE_CARDS = (".include", ".inc", ".incl", ".lib")
_LETTERS = str.maketrans(
    {"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u", "\N{OHM SIGN}": "ohm"} | {"Ω": "ohm"}
)


class NetlistError(ValueError):
    """A netlist that can't be read as a circuit; the message has the line's number and its text."""


class Line(NamedTuple):
    """A line with its continuations.

    Attributes:
        where: "line 7", with the file's name before it where that is not the netlist itself.
        text: without comments, as it was written.
        tokens: in lower case; what stands in braces or quotes is one, in braces.
        note: what it notes, if it is a comment that this package writes.
    """

    where: str
    text: str
    tokens: Sequence[str] = ()
    note: str = ""

    def error(self, problem: object) -> NetlistError:
        """What is wrong with the line."""
        return NetlistError(f"netlist, {self.where}: {problem}. The line is {show(self.text)}")


def logical_lines(text: str, file: str = "") -> Iterator[Line]:
    """The lines of a text. The first one of a netlist, `file` being empty, is its title and left out."""
    pending: list[str] = []
    first = ""
    lines = text.translate(_LETTERS).split("\n")
    for number, whole in enumerate(lines[0 if file else 1 :], start=1 if file else 2):
        where = f"{file}, line {number}" if file else f"line {number}"
        physical = whole.strip()
        if len(whole) > MAX_LINE_LENGTH:
            raise Line(where, whole).error(f"wanted at most {MAX_LINE_LENGTH} characters, got {len(whole)}")
        note = NOTE.match(physical) if physical.startswith("*") else None
        if note is None:
            code = "" if physical.startswith("*") else physical[: _comment_start(physical)].strip()
            if not code:
                continue
            if code.startswith("+"):
                if not pending:
                    raise Line(where, whole).error("there is no line for '+' to continue")
                if len(pending) > MAX_CONTINUATIONS:
                    raise Line(where, whole).error(f"wanted at most {MAX_CONTINUATIONS} continuation lines")
                pending.append(code[1:])
                continue
        if pending:
            yield _tokenised(first, " ".join(pending))
            pending = []
        if note is not None:
            key = note.group(1).lower()
            if key not in NOTES:
                raise Line(where, whole).error(f"a groundstate note is one of {', '.join(NOTES)}")
            yield _tokenised(where, note.group(2), key)
        else:
            pending, first = [code], where
    if pending:
        yield _tokenised(first, " ".join(pending))


def title_line(text: str) -> Line | None:
    """The title of a netlist as if it were none; None where it cannot be one of its lines."""
    title = text.split("\n", 1)[0][:MAX_LINE_LENGTH].translate(_LETTERS).strip()
    try:
        return None if title.startswith("*") else _tokenised("line 1", title[: _comment_start(title)])
    except NetlistError:
        return None


class Folder:
    """The one folder whose files a netlist may include.

    Attributes:
        characters: how many were read.
    """

    def __init__(self, path: str | Path | None):
        self.characters = 0
        if not isinstance(path, str | Path | None):
            raise TypeError(f"folder: wanted a path, got {type(path).__name__}")
        self._root = None if path is None else Path(path).resolve()
        if self._root is not None and not self._root.is_dir():
            raise NetlistError(
                f"folder: wanted the folder of the files that the netlist includes, got {show(str(path))}"
            )

    def lines(self, line: Line, inside: tuple[str, ...]) -> tuple[str, list[Line]]:
        """The name, below the folder, and the lines of the file, or of one section of it, that a line asks for.

        Args:
            line: .include FILE, or .lib FILE [SECTION].
            inside: the files that are being read.
        """
        card, rest = (*line.text.split(None, 1), "")[:2]
        match = re.fullmatch(r"\s*(?:\"([^\"]*)\"|'([^']*)'|(\S+))\s*(\S*)\s*", rest)
        if match is None or (match[4] and card.lower() != ".lib"):
            raise line.error(f"wanted {card} FILE")
        wanted, section = match[1] or match[2] or match[3] or "", match[4].lower()
        if self._root is None:
            raise line.error(
                f"{card} is refused, as a netlist here reads no files: pass folder=, a folder that holds "
                f"{show(wanted)}, put the file's text into the netlist, or remove the line"
            )
        name, text = self._text(line, wanted, inside)
        lines = list(logical_lines(text, name))
        return name, _section(line, lines, section) if section else lines

    def _text(self, line: Line, wanted: str, inside: tuple[str, ...]) -> tuple[str, str]:
        root = self._root
        assert root is not None
        beside = root / (inside[-1] if inside else "x")
        try:
            path = next(
                (path for start in (beside.parent, root) if (path := (start / wanted).resolve()).is_file()), root / "x"
            )
            allowed = path.is_relative_to(root) and path.is_file()
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or a circle of links
            allowed = False
        if not allowed:
            raise line.error(
                f"there is no file {show(wanted)} in the folder that was passed, and no other folder is read; "
                "put it there and name it by its path from there, with /"
            )
        name = path.relative_to(root).as_posix()
        if name in inside or len(inside) >= MAX_INCLUDES:
            raise line.error(
                f"wanted files that do not include one another, at most {MAX_INCLUDES} deep, got {show(name)}"
            )
        self.characters += path.stat().st_size
        if self.characters > MAX_CHARACTERS:
            raise line.error(f"wanted at most {MAX_CHARACTERS} bytes in all included files")
        return name, decoded(path.read_bytes())


def decoded(data: bytes) -> str:
    """The text of a file of a circuit simulator: UTF-8, UTF-16 with a byte-order mark, or else Latin 1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _section(asked: Line, lines: list[Line], section: str) -> list[Line]:
    """The lines between .lib SECTION and .endl."""
    starts = [k for k, line in enumerate(lines) if list(line.tokens) == [".lib", section]]
    if len(starts) != 1:
        raise asked.error(f"wanted one section {show(section)} in the file, got {len(starts)}")
    ends = [k for k, line in enumerate(lines) if k > starts[0] and line.tokens[:1] == [".endl"]]
    if not ends:
        raise asked.error(f"section {show(section)} has no .endl")
    return lines[starts[0] + 1 : ends[0]]


def _comment_start(text: str) -> int:
    match = COMMENT.search(text)
    return len(text) if match is None else match.start()


def _tokenised(where: str, text: str, note: str = "") -> Line:
    line = Line(where, text, (), note)
    if text[:8].lower().startswith(FILE_CARDS):
        return line._replace(tokens=text.lower().split())
    bad = FORBIDDEN.search(text)
    if bad is not None:
        raise line.error(f"{show(bad.group())} is refused: no characters beyond ASCII, no backslashes and no backticks")
    tokens = TOKEN.findall(text.lower())
    for k, token in enumerate(tokens):
        if token[0] in "{'\"":
            if len(token) < 2:
                raise line.error(f"{show(token)} has no counterpart")
            tokens[k] = "{" + token[1:-1] + "}"
        elif token == "}":
            raise line.error("'}' has no counterpart")
        elif len(token) > MAX_TOKEN_LENGTH:
            raise line.error(f"wanted names and numbers of at most {MAX_TOKEN_LENGTH} characters")
    if not tokens and not note:
        raise line.error("there is nothing but punctuation")
    return line._replace(tokens=tokens)
