"""What a theorem is here: a statement with its source, and a function that measures both of its sides on a system."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


class NotApplicableError(ValueError):
    """The theorem's assumptions do not hold for the system that was given; the message says which, and why."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Both sides of a theorem, on one system.

    Attributes:
        compared: what was compared, in a few words.
        measured: what the system did, any shape.
        predicted: what the theorem says, the same shape; of an inequality, the bound that `measured` must not exceed.
        error: how far apart they are, dimensionless; of an inequality, by how much it is violated.
        bound: what rounding, the solver and the order that was neglected leave of the error where the theorem holds.
        error_bar: of a fitted order, its standard error; None where no order was fitted.
    """

    compared: str
    measured: Any
    predicted: Any
    error: float
    bound: float
    error_bar: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound; never for NaN."""
        return bool(np.isfinite(self.error) and self.error <= self.bound)

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "FAILS"
        return f"{verdict}: {self.compared}: {self.error:.2e} <= {self.bound:.1e}"


@dataclasses.dataclass(frozen=True)
class Theorem:
    """A theorem of the field.

    Attributes:
        name: in words joined by hyphens.
        statement: in one or two sentences, formulas in LaTeX between dollar signs.
        assumptions: each in a few words.
        source: author, year, arXiv number.
        applies_to: the systems that it speaks of, in words.
        check: measures it: `check(substrate, x, y, ...) -> tuple[Finding, ...]`, of a batch or of one example. Raises
            `NotApplicableError` where the assumptions do not hold.
        universal: whether it speaks of any suitable substrate; otherwise of one kind of system, and `check()` measures
            it on a system of its own.
        rules: the rules that it is about, by their names on the command line; none where it is about systems alone.
    """

    name: str
    statement: str
    assumptions: tuple[str, ...]
    source: str
    applies_to: str
    check: Callable[..., tuple[Finding, ...]] = dataclasses.field(repr=False)
    universal: bool
    rules: tuple[str, ...] = ()
