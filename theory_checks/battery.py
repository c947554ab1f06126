"""Every theorem of every rule on every kind of system, from one table: proved, measured, or refused with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from substrates.substrate import Substrate
from theory_checks.proofs import PROOFS
from theory_checks.small_systems import small_batch, small_system
from theory_checks.theorems import ALL, Finding, NotApplicableError, Theorem

Verdict = Literal["holds", "fails", "refused"]
OWN = "its own"
"""The column of the systems that theorems of one kind bring."""

NO_RULE = "no rule"
"""Theorems of systems alone."""


@dataclasses.dataclass(frozen=True)
class Property:
    """A property that systems which learn by physics should have, and what shows it.

    Attributes:
        name: "P1", and so on.
        says: in a few words.
        laws: of the kit (`check_substrate`), by their names.
        theorems: by their names.
    """

    name: str
    says: str
    laws: tuple[str, ...] = ()
    theorems: tuple[str, ...] = ()


PROPERTIES = (
    Property(
        "P1",
        "equilibria are stationary",
        ("free stationarity", "nudged stationarity", "residual measures equilibrium"),
        ("co-content", "diode-complementarity"),
    ),
    Property("P2", "the energy never rises", ("energy not above its start",), ("coordinate-descent",)),
    Property(
        "P3",
        "centred EP is the slope of the cost",
        ("EP -> exact gradient", "EP centred: error ~ beta^2"),
        ("equilibrium-propagation", "bias-orders", "quantum"),
    ),
    Property(
        "P4",
        "one-sided EP is the slope of its surrogate",
        ("EP = gradient of its surrogate",),
        ("finite-beta-surrogate",),
    ),
    Property(
        "P5",
        "nudges lower the cost, and bound it",
        ("bounds: L(0,b) <= L <= L(-b,0)", "C(s_beta) never increases with beta", "envelope: dFm/dbeta = C(s_beta)"),
        ("sandwich-bounds",),
    ),
    Property(
        "P6",
        "responses are reciprocal",
        ("reciprocity of the force", "reciprocity of the response"),
        ("onsager-reciprocity", "vector-field-bias", "adjoint-repair"),
    ),
    Property("P7", "no slope, no update", ("no slope, no update",)),
    Property("P8", "symmetries of the energy change nothing", (), ("gauge-symmetries",)),
    Property("P9", "a part learns from what is measured at it", (), ("parameter-locality",)),
    Property(
        "P10", "a batch is the mean of its examples", ("batch = singles: equilibria", "batch = singles: measurements")
    ),
    Property("P11", "complex nudges", ("holomorphic = said",), ("holomorphic", "lock-in")),
    Property("P12", "at a temperature", (), ("stochastic", "gibbs")),
    Property("P13", "agnostic learning", (), ("agnostic-step", "agnostic-lyapunov", "agnostic-metric")),
    Property("P14", "continual updates", (), ("continual",)),
    Property(
        "P15", "updates follow back-propagation step by step", (), ("gradient-descending-updates", "temporal-identity")
    ),
    Property(
        "P16",
        "closed forms",
        (),
        ("free-fermions", "gaussian", "universal-approximation", "predictive-coding", "predictive-coding-kernel"),
    ),
    Property("P17", "the classical limit", (), ("homogeneous-limits",)),
    Property("P18", "motion there and back", (), ("lagrangian-boundary", "hamiltonian-echo")),
)
"""What the battery shows, and by which laws and theorems."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A theorem on a system.

    Attributes:
        theorem: its name.
        system: a name, or `OWN`.
        verdict: "holds", "fails", or "refused".
        findings: what was measured; none where it was refused.
        reason: why it was refused, or what was raised.
        rules: that the theorem is about.
        proved: whether the theorem has a proof.
    """

    theorem: str
    system: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    rules: tuple[str, ...] = ()
    proved: bool = False

    @property
    def worst(self) -> Finding | None:
        """The finding nearest to its bound, or farthest beyond it."""
        return max(self.findings, key=lambda one: one.error / one.bound if one.bound else np.inf, default=None)

    @property
    def orders(self) -> tuple[Finding, ...]:
        """The findings that are fitted orders."""
        return tuple(one for one in self.findings if one.error_bar is not None)

    @property
    def mark(self) -> str:
        """For a table: the error nearest to its bound, or beyond it; a dot where the theorem was refused."""
        if self.verdict == "refused":
            return "."
        error = "" if self.worst is None else f"{self.worst.error:.0e}"
        return error if self.verdict == "holds" else f"FAILS {error}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = [
            {
                "compared": one.compared,
                "error": float(one.error),
                "bound": float(one.bound),
                **({} if one.error_bar is None else {"order": float(one.measured), "error_bar": one.error_bar}),
            }
            for one in self.findings
        ]
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "findings": found}


@dataclasses.dataclass(frozen=True)
class Battery:
    """All cells, theorem by theorem."""

    cells: tuple[Cell, ...]

    @property
    def passed(self) -> bool:
        """Whether no theorem fails anywhere."""
        return all(cell.verdict != "fails" for cell in self.cells)

    def at(self, theorem: str, system: str) -> Cell | None:
        """The cell of a theorem and a system, None where there is none."""
        return next((cell for cell in self.cells if (cell.theorem, cell.system) == (theorem, system)), None)

    @property
    def systems(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(dict.fromkeys(cell.system for cell in self.cells))

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Rules and theorems, rule by rule: a theorem of several rules stands under each of them."""
        pairs = dict.fromkeys((rule, cell.theorem) for cell in self.cells for rule in cell.rules or (NO_RULE,))
        rules = list(dict.fromkeys(rule for rule, _ in pairs))
        return tuple(sorted(pairs, key=lambda pair: (pair[0] == NO_RULE, rules.index(pair[0]))))

    def __str__(self) -> str:
        proved = {cell.theorem for cell in self.cells if cell.proved}
        width = max((len(theorem) for _, theorem in self.rows), default=0) + 11
        lines = [f"{number}: {system}" for number, system in enumerate(self.systems, 1)]
        lines += ["", " " * width + "".join(f"{number:>7}" for number in range(1, len(self.systems) + 1))]
        above = None
        for rule, theorem in self.rows:
            lines += [] if rule == above else [f"{rule}:"]
            above = rule
            found = [self.at(theorem, system) for system in self.systems]
            marks = "".join(f"{'' if cell is None else cell.mark:>7}" for cell in found)
            lines.append(f"  {theorem}{', proved' if theorem in proved else ''}".ljust(width) + marks)
        told = "A number: measured, the error nearest to its bound. A dot: refused, it does not apply."
        return "\n".join([*lines, "", told])


def measure(theorem: Theorem, system: str, *arguments: Any, **options: Any) -> Cell:
    """The cell of a theorem on a system, by what `check` is given; one that raises fails, with what it raised."""
    verdict: Verdict
    findings, reason = (), ""
    try:
        findings = theorem.check(*arguments, **options)
        verdict = "holds" if all(one.holds for one in findings) else "fails"
    except NotApplicableError as refusal:
        verdict, reason = "refused", str(refusal)
    except Exception as error:
        verdict, reason = "fails", f"{type(error).__name__}: {error}"
    return Cell(theorem.name, system, verdict, findings, reason, theorem.rules, theorem.name in PROOFS)


def battery(
    kinds: Mapping[str, type[Substrate]],
    theorems: Sequence[Theorem] = ALL,
    *,
    own: bool = True,
    seed: int = 0,
) -> Battery:
    """Measures theorems on small systems of several kinds, in 64 bits.

    Args:
        kinds: classes of substrates by name.
        theorems: by default all.
        own: whether theorems of one kind are measured on a system of their own too.
        seed: draws systems, inputs and targets.
    """
    with jax.enable_x64(True):
        return gathered(_cells(kinds, theorems, own, seed), theorems)


def gathered(cells: Iterable[Cell], theorems: Sequence[Theorem]) -> Battery:
    """Cells in the order of their theorems."""
    order = [theorem.name for theorem in theorems]
    return Battery(tuple(sorted(cells, key=lambda cell: order.index(cell.theorem))))


def _cells(kinds: Mapping[str, type[Substrate]], theorems: Sequence[Theorem], own: bool, seed: int) -> Iterator[Cell]:
    for theorem in theorems:
        if own and not theorem.universal:
            yield measure(theorem, OWN)
    for name, kind in kinds.items():
        build, draw, relax = jax.random.split(jax.random.key(seed), 3)
        system = small_system(kind, key=build)
        x, y = small_batch(system, key=draw)
        for theorem in theorems:
            yield measure(theorem, name, system, x, y, **({"key": relax} if theorem.universal else {}))
