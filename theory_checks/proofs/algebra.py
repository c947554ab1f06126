"""Algebra that the proofs share: when an expression is zero, and how an equilibrium moves with its parameters."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from mpmath import mpc, mpf, workdps
from sympy import (
    Derivative,
    Dummy,
    Expr,
    Function,
    Integral,
    Limit,
    Matrix,
    MatrixBase,
    S,
    Subs,
    Sum,
    Symbol,
    Tuple,
    cancel,
    diff,
    exp,
    expand,
    factorial,
    lambdify,
    nan,
    numer,
    oo,
    preorder_traversal,
    simplify,
    symbols,
    sympify,
    together,
    zoo,
)
from sympy.core.function import AppliedUndef
from sympy.printing.codeprinter import PrintMethodNotImplementedError

Formula = Any  # Expr | MatrixBase: SymPy annotates what its functions return as wider than it is

SIMPLIFIERS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("at sight", lambda e: e),
    ("expanded", expand),
    ("over one denominator", lambda e: expand(numer(together(e)))),
    ("cancelled", cancel),
    ("in exponentials", lambda e: expand(expand(e.rewrite(exp)), power_exp=True)),
    ("simplified", simplify),
)
"""From the quickest to the slowest; each of them only ever rewrites an expression as an equal one."""

DIGITS = 30


def vanishing(left: Formula, right: Formula) -> str | None:
    """By which simplifier left - right became zero, entry by entry; None where none of them brought it there.

    A random point may reject, quickly; it never accepts.
    """
    if isinstance(left, MatrixBase) or isinstance(right, MatrixBase):
        if getattr(left, "shape", None) != getattr(right, "shape", None):
            return None
        found = [vanishing(*pair) for pair in zip(Matrix(left), Matrix(right), strict=True)]
        names = [name for name, _ in SIMPLIFIERS]
        return None if None in found else max(found, key=names.index, default=names[0])
    left, right = sympify(left).doit(), sympify(right).doit()
    if (left - right).has(nan, zoo, oo, -oo):
        return None
    if not (left - right).has(Integral, Sum, Limit):
        left, right = _named_apart(left, right)
    if differ_at_a_random_point(left, right):
        return None
    return next((name for name, simplified in SIMPLIFIERS if simplified(left - right) == 0), None)


def differ_at_a_random_point(left: Formula, right: Formula) -> bool:
    """Whether the sides differ beyond rounding at a point; False too where they could not be evaluated there."""
    unknown = sorted(left.free_symbols | right.free_symbols, key=lambda one: one.sort_key())
    if any(not one.is_commutative or one.is_integer for one in unknown):
        return False
    numbers = random.Random(0)
    point = [_number(one, numbers) for one in unknown]
    with workdps(DIGITS):
        try:
            first, second = (complex(lambdify(unknown, side, "mpmath", dummify=True)(*point)) for side in (left, right))
        except (TypeError, NameError, AttributeError, ZeroDivisionError, PrintMethodNotImplementedError):
            return False
    return abs(first - second) > 1e-9 * max(1.0, abs(first), abs(second))


def _number(symbol: Symbol, numbers: random.Random) -> Any:
    size = mpf(numbers.randint(50, 200)) / 101
    if symbol.is_nonnegative or symbol.is_positive:
        return size
    sign = numbers.choice((-1, 1))
    return sign * size if symbol.is_real else mpc(sign * size, mpf(numbers.randint(50, 200)) / 103)


def _named_apart(left: Formula, right: Formula) -> tuple[Formula, Formula]:
    """Both sides with a symbol in place of every general function and derivative: what holds of any numbers in their
    places holds of them."""
    names: dict[Expr, Expr] = {}
    walk = preorder_traversal(Tuple(left, right))
    for node in walk:
        if isinstance(node, (Derivative, AppliedUndef, Subs)):
            names.setdefault(node, Dummy(real=node.is_real, positive=node.is_positive))
            walk.skip()
    return left.xreplace(names), right.xreplace(names)


class Branch:
    """A root of `residual` in `state`, followed as the parameters of the residual vary (implicit function theorem).

    Args:
        residual: as many expressions as there are variables.
        state: the variables.
    """

    def __init__(self, residual: Formula, state: Formula):
        self.residual: Formula = Matrix(residual)
        self.state: Formula = Matrix(state)

    @functools.cached_property
    def jacobian(self) -> Formula:
        """d residual_i / d state_j."""
        return self.residual.jacobian(self.state)

    @functools.cached_property
    def inverse(self) -> Formula:
        """The inverse of the Jacobian, by Cramer's rule."""
        return self.jacobian.adjugate() / self.jacobian.det(method="berkowitz")

    def velocity(self, parameter: Symbol) -> Formula:
        """d state / d parameter = -J^{-1} d residual / d parameter."""
        return -self.inverse * self.residual.diff(parameter)

    def derivative(self, quantity: Formula, parameter: Symbol) -> Formula:
        """d quantity / d parameter along the branch."""
        pushed = sum(diff(quantity, s) * v for s, v in zip(self.state, self.velocity(parameter), strict=True))
        return diff(quantity, parameter) + pushed


STRENGTH, PARAMETER = symbols("beta theta", real=True)


@dataclasses.dataclass(frozen=True)
class NudgedSystem:
    """F = E(theta, s) + beta C(s), E and C general functions of as many state variables as asked for.

    Attributes:
        size: how many variables the state has.
        name: theirs, without the number.
        beta: the strength of the nudge.
        theta: the parameter.
    """

    size: int = 2
    name: str = "s"
    beta: Symbol = STRENGTH
    theta: Symbol = PARAMETER

    @functools.cached_property
    def state(self) -> Formula:
        return symbols(" ".join(f"{self.name}_{i + 1}" for i in range(self.size)) + ",", real=True)

    @functools.cached_property
    def energy(self) -> Formula:
        return Function("E", real=True)(self.theta, *self.state)

    @functools.cached_property
    def cost(self) -> Formula:
        return Function("C", real=True)(*self.state)

    @property
    def total(self) -> Formula:
        return self.energy + self.beta * self.cost

    @property
    def forces(self) -> list[Formula]:
        """The gradient of F in the state, zero at rest."""
        return [diff(self.total, s) for s in self.state]

    @functools.cached_property
    def branch(self) -> Branch:
        return Branch(self.forces, self.state)

    @property
    def cost_gradient(self) -> Formula:
        return Matrix([diff(self.cost, s) for s in self.state])

    def at_rest(self, expression: Formula) -> Formula:
        """The expression where the gradient of F is zero: each dE/ds_i is -beta dC/ds_i there."""
        return expression.xreplace({diff(self.energy, s): -self.beta * diff(self.cost, s) for s in self.state})


def curl(branch: Branch, strength: Symbol) -> Branch:
    """The branch of a force that is no gradient: of the first two variables, each pushes the other the opposite way."""
    first, second, *others = branch.state
    return Branch(branch.residual + strength * Matrix([second, -first, *(0 for _ in others)]), list(branch.state))


def coefficient(expression: Formula, small: Formula, order: int) -> Formula:
    """The Taylor coefficient of small**order about 0."""
    return diff(expression, small, order).subs(small, 0) / factorial(order)


def gaussian_mean(polynomial: Formula, noise: Sequence[Symbol]) -> Formula:
    """The mean of a polynomial over independent normal variables of mean 0 and variance 1.

    exp(Laplacian / 2) of the polynomial, at zero.
    """
    mean, term, order = S.Zero, expand(polynomial), 0
    while term != 0:
        mean += term.subs({one: 0 for one in noise})
        order += 1
        term = expand(sum(diff(term, one, 2) for one in noise) / (2 * order))
    return mean
