"""Proofs about what a push here does there: reciprocity, driven networks, oscillators and lock-in detection."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator

from sympy import (
    Derivative,
    Function,
    I,
    Integer,
    Integral,
    Matrix,
    Symbol,
    asin,
    conjugate,
    cos,
    diff,
    exp,
    expand,
    pi,
    sin,
    sqrt,
    symbols,
)

from theory_checks.proofs.algebra import Branch, coefficient, curl
from theory_checks.proofs.proof import Planted, Step, provable

THETA = Symbol("theta", real=True)


@provable(
    "onsager-reciprocity",
    faults={"no energy": "a force with a curl", "one field turned": "one of the fields coupled with the other sign"},
)
def onsager_reciprocity(fault: Planted) -> Iterator[Step]:
    state, fields = symbols("s_1 s_2", real=True), symbols("nu_1 nu_2", real=True)
    energy, *seen = (Function(name, real=True)(*state) for name in ("E", "A_1", "A_2"))
    turned = -1 if fault("one field turned") else 1
    total = energy + fields[0] * seen[0] + turned * fields[1] * seen[1]
    honest = Branch([diff(total, s) for s in state], state)
    twist = Symbol("a", real=True)
    branch = curl(honest, twist) if fault("no energy") else honest
    yield Step(
        "Both are second derivatives of the energy at rest.",
        branch.derivative(seen[0], fields[1]),
        branch.derivative(seen[1], fields[0]),
        name=r"\frac{dA_1}{d\nu_2}",
    )
    slopes = [Matrix([diff(a, s) for s in state]) for a in seen]
    yield Step(
        "In the metric of the inverse Hessian.",
        branch.derivative(seen[0], fields[1]),
        -(slopes[0].T * honest.inverse * slopes[1])[0],
        name=r"\frac{dA_1}{d\nu_2}",
    )
    curled = curl(honest, twist)
    yield Step(
        "A force with a curl breaks it by the antisymmetric part of its inverse Jacobian.",
        curled.derivative(seen[0], fields[1]) - curled.derivative(seen[1], fields[0]),
        (slopes[0].T * (curled.inverse.T - curled.inverse) * slopes[1])[0],
    )


@provable(
    "driven",
    faults={
        "gyrator": "an element that is not reciprocal",
        "not conjugated": "the error fed back as it is",
        "dissipated power": "the reading taken with conjugates",
    },
)
def driven(fault: Planted) -> Iterator[Step]:
    a, b, d, p, q, r, target = symbols("z_11 z_12 z_22 p q r y")
    beta = Symbol("beta", real=True)
    other = Symbol("z_21") if fault("gyrator") else b
    Z, slope, drive = Matrix([[a, b], [other, d]]), Matrix([[p, q], [q, r]]), Matrix(symbols("f_1 f_2"))
    inverse = Z.inv("ADJ")
    free = inverse * drive
    x = Matrix(symbols("x_1 x_2"))
    error = x[1] - target
    moved = -inverse * slope * x
    change = (conjugate(error) * moved[1] + error * conjugate(moved[1])) / 2
    back = error if fault("not conjugated") else conjugate(error)
    nudge = -inverse * Matrix([0, back])
    left = conjugate(x).T if fault("dissipated power") else x.T
    reading = ((left + beta * nudge.T) * slope * (x + beta * nudge))[0] / 2
    response = diff(reading, beta).subs(beta, 0)
    yield Step("How the driven state moves with a parameter.", -inverse * slope * free,
               free.diff(a) * p + free.diff(b) * q + free.diff(d) * r, name=r"\frac{dx}{d\theta}")  # fmt: skip
    yield Step(
        "The gradient of |x_o - y|^2 / 2 is the real part of the response of the reading.",
        change,
        (response + conjugate(response)) / 2,
        name=r"\frac{dL}{d\theta}",
    )
    swapped = reading.subs(beta, -beta)
    strength = Symbol("b", positive=True)
    yield Step(
        "The state is linear in beta and the reading quadratic: the centred contrast is exact.",
        ((reading - swapped) / (2 * beta)).subs(beta, strength).expand(),
        response.expand(),
    )
    w, m, g, k, z = symbols("omega m g k x", real=True)
    impedance = -(w**2) * m + I * w * g + k
    for value, shown, what in ((k, z**2 / 2, "spring"), (m, -(w**2) * z**2 / 2, "mass"), (g, I * w * z**2 / 2, "drag")):
        yield Step(f"Read of a {what}.", Derivative(impedance * z**2 / 2, value), shown)


@provable(
    "natural-frequencies",
    scope=r"$E = -\sum W \cos(\varphi_i - \varphi_j)$, and frequencies that add up to zero",
    faults={
        "one-way couplings": "an oscillator that pulls more than it is pulled",
        "sign": "the frequencies entered with the other sign",
    },
)
def natural_frequencies(fault: Planted) -> Iterator[Step]:
    phases, omega = symbols("varphi_1:4", real=True), symbols("omega_1:4", real=True)
    w12, w13, w23, beta = symbols("W_12 W_13 W_23 beta", real=True)
    energy = -sum(w * cos(phases[i] - phases[j]) for w, i, j in ((w12, 0, 1), (w13, 0, 2), (w23, 1, 2))) - sum(
        o * phase for o, phase in zip(omega, phases, strict=True)
    ) * (-1 if fault("sign") else 1)
    cost = Function("C", real=True)(*phases[:2])
    torques = [-diff(energy, phase) for phase in phases]
    if fault("one-way couplings"):
        torques[0] -= Symbol("w_12", real=True) * sin(phases[0] - phases[1])
    yield Step(
        "Each oscillator turns by its frequency and the pull of the others: Kuramoto's equations.",
        torques[0],
        omega[0] - w12 * sin(phases[0] - phases[1]) - w13 * sin(phases[0] - phases[2]),
        name=r"\dot\varphi_1",
    )
    yield Step("All pulls cancel: locked, the frequencies must add up to zero.", sum(torques), sum(omega))
    branch = Branch([beta * diff(cost, phase) - torque for phase, torque in zip(phases, torques, strict=False)][:2],
                    phases[:2])  # fmt: skip
    for i in range(2):
        yield Step(
            f"The gradient for frequency {i + 1}, the third phase pinned.",
            branch.derivative(cost, omega[i]).subs(beta, 0),
            -branch.velocity(beta)[i].subs(beta, 0),
            name=rf"\frac{{dL}}{{d\omega_{i + 1}}}",
        )
    speed, pull = Symbol("omega", positive=True), Symbol("W", positive=True)
    locked = asin(speed / pull) * (-1 if fault("sign") else 1)
    yield Step(
        "Two oscillators lock at arcsin(omega / W).",
        pull * sin(locked),
        speed,
        name=r"W \sin(\varphi_1 - \varphi_2)",
    )
    yield Step("Near the edge, where omega comes to W, the response diverges.", Derivative(locked, speed),
               1 / sqrt(pull**2 - speed**2))  # fmt: skip


@provable(
    "lock-in",
    faults={
        "reference not conjugated": "the state multiplied by the drive and not by its conjugate",
        "half a period": "an average that stops in mid-period",
    },
)
def lock_in(fault: Planted) -> Iterator[Step]:
    t, omega, r, h, d = symbols("t omega r h d", positive=True)
    a, b, c1, c2 = symbols("a b c_1 c_2", real=True)
    hessian, slope = Matrix([[a, b], [b, d]]), Matrix([c1, c2])
    steady = -(hessian + I * omega * Matrix.eye(2)).inv("ADJ") * slope * r * exp(I * omega * t)
    yield Step(
        "The displacement that solves du/dt = -H u - grad C beta(t).",
        steady.diff(t),
        -(hessian * steady) - slope * r * exp(I * omega * t),
        name=r"\dot u",
    )
    period = 2 * pi / omega
    end = period / 2 if fault("half a period") else period
    reference = exp(I * omega * t) if fault("reference not conjugated") else exp(-I * omega * t)
    mode = -c1 / (h + I * omega) * r * exp(I * omega * t)
    yield Step("On average the state is the free one.", Integral(mode, (t, 0, end)), Integer(0), name=r"\int u\,dt")
    shown = Integral(expand(mode * reference), (t, 0, end)).doit() / (period * r)
    yield Step("Of a mode of stiffness h, times the conjugate drive.", shown, -c1 / (h + I * omega))
    slow = Symbol("x", real=True)
    series = shown.subs(omega, slow)
    yield Step("As the drive slows down: the response to a nudge.", coefficient(series, slow, 0), -c1 / h)
    yield Step("Lag, to first order imaginary,", coefficient(series, slow, 1), I * c1 / h**2)
    yield Step("to second order real.", coefficient(series, slow, 2), c1 / h**3)
