"""What a proof is here: steps whose two sides SymPy brings together by itself, and the faults that must break them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping

from sympy import ImmutableMatrix, latex

from theory_checks.proofs.algebra import Formula, vanishing
from theory_checks.theorems import Theorem, find

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
        theorem: what is proved.
        steps: in order.
        scope: the systems that the derivation is about, in words, where they are fewer than the theorem's.
        fault: the fault that was planted, in words; None in the honest proof.
    """

    theorem: Theorem
    steps: tuple[Step, ...]
    scope: str = ""
    fault: str | None = None

    def verify(self) -> Verification:
        """Has SymPy compute every step anew."""
        return Verification(tuple(step.check() for step in self.steps))

    def _repr_markdown_(self) -> str:
        about = self.theorem
        head = f"**{about.name}**" + (f" (broken on purpose: {self.fault})" if self.fault else "")
        lines = [f"{head}: {about.statement}", f"*Source:* {about.source}."]
        lines.append(f"*Assumes:* {'; '.join(about.assumptions)}.")
        lines += [f"*Derived for:* {self.scope}."] if self.scope else []
        for number, one in enumerate(self.verify().checked, 1):
            mark = "✓" if one.holds else "✗"
            lines += [f"{number}. {one.step.claim}: {mark} *({one.how})*", f"$$ {one.step.latex()} $$"]
        return "\n\n".join(lines)

    def __str__(self) -> str:
        head = textwrap.fill(f"{self.theorem.name}: {self.theorem.statement}", WIDTH)
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
        theorem: what is proved.
        faults: what can be planted: a short name, and the fault in words.
        derive: yields the steps, committing the planted fault.
        scope: as of `Proof`.
    """

    theorem: Theorem
    faults: Mapping[str, str]
    derive: Callable[[Planted], Iterator[Step]]
    scope: str = ""

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
        return Proof(self.theorem, steps, self.scope, None if fault is None else self.faults[fault])


def provable(
    name: str, *, faults: Mapping[str, str], scope: str = ""
) -> Callable[[Callable[[Planted], Iterator[Step]]], Provable]:
    """Makes the proof of a theorem, by its name, of a derivation that yields steps."""
    return lambda derive: Provable(find(name), faults, derive, scope)


def _latex(side: Formula) -> str:
    return latex(ImmutableMatrix(side) if hasattr(side, "shape") else side)
