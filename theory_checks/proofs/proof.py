"""What a proof is here: steps whose two sides SymPy brings together by itself, and the faults that must break them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping

from sympy import ImmutableMatrix, latex

from theory_checks.proofs.algebra import Formula, vanishing

WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Checked:
    """What became of a step.

    Attributes:
        step: the step.
        holds: whether SymPy brought its two sides together.
        how: by what, or why not.
    """

    step: Step
    holds: bool
    how: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'FAILS'} ({self.how}): {self.step.claim}"


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of a proof: left = right, or left <= right where a margin is given.

    Attributes:
        claim: in words.
        left: an expression or a matrix.
        right: the same shape.
        margin: what right - left is, written so that SymPy sees that it is not negative; None for an equality.
        name: LaTeX of what `left` is called, shown before it; empty for none.
    """

    claim: str
    left: Formula
    right: Formula
    margin: Formula | None = None
    name: str = ""

    def check(self) -> Checked:
        """Computes the two sides anew and compares them."""
        how = vanishing(self.left, self.right if self.margin is None else self.right - self.margin)
        if how is None:
            return Checked(self, False, "the two sides differ" if self.margin is None else "the margin is another")
        if self.margin is not None and self.margin.is_nonnegative is not True:
            return Checked(self, False, f"the margin {self.margin} may be negative")
        return Checked(self, True, how)

    def latex(self) -> str:
        """The equation, without dollar signs."""
        relation = "=" if self.margin is None else r"\leq"
        called = f"{self.name} = " if self.name else ""
        return f"{called}{_latex(self.left)} {relation} {_latex(self.right)}"


@dataclasses.dataclass(frozen=True)
class Verification:
    """What became of all steps of a proof; true where every one holds."""

    checked: tuple[Checked, ...]

    def __bool__(self) -> bool:
        return bool(self.checked) and all(one.holds for one in self.checked)

    @property
    def failed(self) -> tuple[Step, ...]:
        """The steps that do not hold."""
        return tuple(one.step for one in self.checked if not one.holds)

    def __str__(self) -> str:
        return "\n".join(map(str, self.checked))


@dataclasses.dataclass(frozen=True)
class Proof:
    """A derivation, step by step; a notebook shows it in formulas.

    Attributes:
        name: the theorem's, in words joined by hyphens.
        statement: in a sentence, formulas in LaTeX between dollar signs.
        assumptions: each in a few words.
        source: author, year, arXiv number.
        steps: in order.
        fault: the fault that was planted, in words; None in the honest proof.
    """

    name: str
    statement: str
    assumptions: tuple[str, ...]
    source: str
    steps: tuple[Step, ...]
    fault: str | None = None

    def verify(self) -> Verification:
        """Has SymPy compute every step anew."""
        return Verification(tuple(step.check() for step in self.steps))

    def _repr_markdown_(self) -> str:
        head = f"**{self.name}**" + (f" (broken on purpose: {self.fault})" if self.fault else "")
        lines = [f"{head}: {self.statement}", f"*Source:* {self.source}."]
        lines += [f"*Assumes:* {'; '.join(self.assumptions)}."] if self.assumptions else []
        for number, one in enumerate(self.verify().checked, 1):
            mark = "✓" if one.holds else "✗"
            lines += [f"{number}. {one.step.claim}: {mark} *({one.how})*", f"$$ {one.step.latex()} $$"]
        return "\n\n".join(lines)

    def __str__(self) -> str:
        head = textwrap.fill(f"{self.name}: {self.statement}", WIDTH)
        return "\n".join([head, *(f"  {one}" for one in self.verify().checked)])


class Planted:
    """Answers a derivation that asks which fault it is to commit."""

    def __init__(self, fault: str | None, known: Mapping[str, str]):
        self._fault, self._known = fault, known

    def __call__(self, fault: str) -> bool:
        if fault not in self._known:
            raise KeyError(f"the derivation asks for the fault {fault!r}, declared are {', '.join(self._known)}")
        return fault == self._fault


@dataclasses.dataclass(frozen=True)
class Provable:
    """A theorem that SymPy proves, and the faults that break its proof.

    Attributes:
        name: in words joined by hyphens.
        statement: in a sentence, formulas in LaTeX between dollar signs.
        assumptions: each in a few words.
        source: author, year, arXiv number.
        faults: what can be planted: a short name, and the fault in words.
        derive: yields the steps, committing the planted fault.
    """

    name: str
    statement: str
    assumptions: tuple[str, ...]
    source: str
    faults: Mapping[str, str]
    derive: Callable[[Planted], Iterator[Step]]

    def __call__(self, fault: str | None = None) -> Proof:
        """The proof, or its broken twin.

        Args:
            fault: one of `faults`; None for the honest proof.

        Raises:
            ValueError: when the fault is unknown.
        """
        if fault is not None and fault not in self.faults:
            known = ", ".join(map(repr, self.faults))
            raise ValueError(f"fault: wanted None or one of {known}, got {fault!r}; `faults` says what each of them is")
        steps = tuple(self.derive(Planted(fault, self.faults)))
        broken = None if fault is None else self.faults[fault]
        return Proof(self.name, self.statement, self.assumptions, self.source, steps, broken)


def provable(
    name: str, statement: str, *, source: str, faults: Mapping[str, str], assumptions: tuple[str, ...] = ()
) -> Callable[[Callable[[Planted], Iterator[Step]]], Provable]:
    """Makes a theorem of a derivation that yields steps."""
    return lambda derive: Provable(name, statement, assumptions, source, faults, derive)


def _latex(side: Formula) -> str:
    return latex(ImmutableMatrix(side) if hasattr(side, "shape") else side)
