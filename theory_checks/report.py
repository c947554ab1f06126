"""What a check found: one line per law, with the number that was measured and the bound that it had to meet."""

from __future__ import annotations

import dataclasses
import html
import math
import textwrap
from typing import Literal

from substrates.pictures import display
from theory_checks.pictures import margins

Verdict = Literal["holds", "fails", "does not apply"]
WIDTHS = (34, 58, 10, 12, 14)
HEADS = ("law", "what was compared", "number", "bound", "verdict")


class BrokenLawError(AssertionError):
    """A substrate breaks a law of its contract."""


@dataclasses.dataclass(frozen=True)
class Law:
    """One law held against one system.

    Attributes:
        name: the law.
        compared: what was compared; for a law that does not apply, why not.
        verdict: "holds", "fails" or "does not apply".
        number: what was measured, dimensionless unless `compared` gives a unit; None where nothing was.
        bound: what the number had to meet, "<= 1.0e-10" or ">= 1.9".
        hint: where to look, of a law that fails; "" otherwise.
    """

    name: str
    compared: str
    verdict: Verdict
    number: float | None = None
    bound: str = ""
    hint: str = ""

    @property
    def decades(self) -> float | None:
        """How many decades the number lies inside its bound, negative outside; None where there is no such pair."""
        side, _, limit = self.bound.partition(" ")
        if self.number is None or side not in ("<=", ">="):
            return None
        ratio = float(limit) / self.number if self.number else math.inf
        decades = math.log10(ratio) if ratio > 0 else -math.inf
        return decades if side == "<=" else -decades

    @property
    def cells(self) -> tuple[str, ...]:
        number = "" if self.number is None else f"{self.number:.3g}"
        return self.name, self.compared, number, self.bound, self.verdict


def at_most(name: str, compared: str, number: object, bound: object) -> Law:
    """The law that a number is at most a bound; NaN fails it, and so does a bound that is not finite."""
    value, limit = float(number), float(bound)  # type: ignore[arg-type]
    return Law(name, compared, "holds" if value <= limit < math.inf else "fails", value, f"<= {limit:.2g}")


def at_least(name: str, compared: str, number: object, bound: object) -> Law:
    """The law that a number is at least a bound; NaN fails it."""
    value, limit = float(number), float(bound)  # type: ignore[arg-type]
    return Law(name, compared, "holds" if value >= limit else "fails", value, f">= {limit:.2g}")


def does_not_apply(name: str, reason: str) -> Law:
    """A law that says nothing about this system, with the reason."""
    return Law(name, reason, "does not apply")


def broken(name: str, reason: str) -> Law:
    """A law that could not even be measured, with the reason."""
    return Law(name, reason, "fails", math.nan)


@dataclasses.dataclass(frozen=True)
class Report:
    """The laws that were held against a substrate; prints as a table.

    Attributes:
        system: what was checked, and at which nudging strength.
        laws: one `Law` for each that was held against it, those that do not apply included.
    """

    system: str
    laws: tuple[Law, ...]

    @property
    def failures(self) -> tuple[Law, ...]:
        """The laws that fail."""
        return tuple(law for law in self.laws if law.verdict == "fails")

    @property
    def passed(self) -> bool:
        """Whether no law fails."""
        return not self.failures

    def __getitem__(self, name: str) -> Law:
        """The law of that name; KeyError lists the names that there are."""
        for law in self.laws:
            if law.name == name:
                return law
        raise KeyError(f"no law {name!r}; there are {[law.name for law in self.laws]}")

    def raise_if_failed(self) -> Report:
        """The report itself, unless a law fails: then BrokenLawError, with the table."""
        if not self.passed:
            raise BrokenLawError(f"{', '.join(law.name for law in self.failures)}\n{self}")
        return self

    @property
    def summary(self) -> str:
        """How many laws hold, fail, and do not apply."""
        count = lambda verdict: sum(law.verdict == verdict for law in self.laws)
        return f"{count('holds')} laws hold, {count('fails')} fail, {count('does not apply')} do not apply."

    def __str__(self) -> str:
        def row(cells: tuple[str, ...]) -> list[str]:
            columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
            height = max(len(column) for column in columns)
            padded = [column + [""] * (height - len(column)) for column in columns]
            lines = zip(*padded, strict=True)
            return ["  ".join(cell.ljust(w) for cell, w in zip(line, WIDTHS, strict=True)).rstrip() for line in lines]

        rule = "  ".join("-" * width for width in WIDTHS)
        body = [line for law in self.laws for line in row(law.cells)]
        hints = [line for law in self.failures for line in _hint_lines(law)]
        return "\n".join([self.system, "", *row(HEADS), rule, *body, rule, self.summary, *hints])

    def as_dict(self) -> dict[str, object]:
        """The report in plain numbers and words, for JSON: numbers that are not finite are None."""
        number = lambda law: law.number if law.number is not None and math.isfinite(law.number) else None
        laws = [dataclasses.asdict(law) | {"number": number(law)} for law in self.laws]
        return {"system": self.system, "passed": self.passed, "laws": laws}

    def _repr_html_(self) -> str:
        colours = {"holds": "#2a7f3f", "fails": "#b3261e", "does not apply": "#777777"}

        def row(law: Law) -> str:
            cells = "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in law.cells[:-1])
            return f"<tr>{cells}<td style='color:{colours[law.verdict]}'>{law.verdict}</td></tr>"

        heads = "".join(f"<th style='text-align:left'>{head}</th>" for head in HEADS)
        measured = [law for law in self.laws if law.decades is not None]
        sides = [law.name for law in measured], [law.decades or 0.0 for law in measured]
        picture = display.picture(lambda ax: margins(*sides, ax), size=(4.6, 0.7 + 0.16 * len(measured)))
        return (
            f"<p>{html.escape(self.system)}</p>{picture}<table><tr>{heads}</tr>"
            f"{''.join(row(law) for law in self.laws)}</table><p>{self.summary}</p>"
            f"{''.join(f'<p>{html.escape(line)}</p>' for law in self.failures for line in _hint_lines(law))}"
        )


def _hint_lines(law: Law) -> list[str]:
    """Where to look for what breaks a law."""
    return textwrap.wrap(f"{law.name}: {law.hint}", 140, subsequent_indent="  ") if law.hint else []
