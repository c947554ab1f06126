"""Proof of locality: what a part must measure to learn, and that it suffices."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Iterator

from sympy import Function, Integer, diff, symbols

from theory_checks.proofs.algebra import Branch
from theory_checks.proofs.proof import Planted, Step, provable


@provable(
    "parameter-locality",
    scope="parts whose energies add up",
    faults={
        "shared budget": "a part of the energy that is divided by the sum of all parameters",
        "leaking meter": "a meter that reads a little of a variable elsewhere",
    },
)
def parameter_locality(fault: Planted) -> Iterator[Step]:
    theta, other, beta, leak = symbols("theta_1 theta_2 beta epsilon", real=True)
    free, nudged = symbols("s_1:5", real=True), symbols("r_1:5", real=True)
    part, elsewhere, rest = (Function(name, real=True) for name in ("E_1", "E_2", "E_0"))

    def energy(state):
        own = part(theta, *state[:2])
        own = own / (theta + other) if fault("shared budget") else own
        return own + elsewhere(other, *state[2:]) + rest(*state)

    def reading(state):
        return diff(energy(state), theta) + (leak * state[2] if fault("leaking meter") else 0)

    contrast = reading(nudged) - reading(free)
    yield Step(
        "Of a part that joins s1 and s2, the contrast does not change with another variable,",
        diff(contrast, nudged[2]),
        Integer(0),
        name=r"\frac{\partial \Delta_1}{\partial r_3}",
    )
    yield Step(
        "nor with the parameter of a part elsewhere, the states as they are:",
        diff(contrast, other),
        Integer(0),
        name=r"\frac{\partial \Delta_1}{\partial \theta_2}",
    )
    yield Step(
        "it is what two meters at the part read.",
        contrast,
        diff(part(theta, *nudged[:2]), theta) - diff(part(theta, *free[:2]), theta),
        name=r"\Delta_1",
    )
    s, far = free[0], free[1]
    cost, joint, own = Function("C", real=True)(far), rest(s, far), part(theta, s)
    branch = Branch([diff(own + joint, s), diff(joint + beta * cost, far)], (s, far))
    yield Step(
        "Yet it is the gradient of a cost that stands elsewhere: the nudge arrives through the states.",
        branch.derivative(cost, theta),
        branch.derivative(diff(own, theta), beta),
        name=r"\frac{dL}{d\theta_1}",
    )
