"""Proofs about networks in layers: predictive coding, and states that a forward pass starts from."""

from __future__ import annotations

from collections.abc import Iterator

from sympy import Function, Integer, Matrix, Symbol, diff, expand, symbols

from theory_checks.proofs.algebra import Branch, coefficient
from theory_checks.proofs.proof import Planted, Step, provable


@provable(
    "predictive-coding",
    faults={
        "feedback of its own": "errors sent back by other weights than the forward ones",
        "wrong side": "the nudge counted as a pull away from the target",
    },
)
def predictive_coding(fault: Planted) -> Iterator[Step]:
    x, beta = symbols("x beta", real=True)
    h, theta = symbols("h_1:4", real=True), symbols("theta_1:4", real=True)
    below = (x, *h[:2])
    layers = [Function(f"f_{k + 1}", real=True)(theta[k], below[k]) for k in range(3)]
    cost = Function("C", real=True)(h[2])
    errors = [unit - layer for unit, layer in zip(h, layers, strict=True)]
    energy = sum(error**2 for error in errors) / 2
    sign = -1 if fault("wrong side") else 1
    forces = [diff(energy + sign * beta * cost, unit) for unit in h]
    if fault("feedback of its own"):
        forces[0] -= Symbol("b", real=True) * errors[1]
    branch = Branch(forces, h)

    def free(expression):
        """At the free state every unit is what its layer predicts; derivatives of the layers stay as they are."""
        slopes = {diff(layer, v): Symbol(f"{layer.func}_{v}") for layer in layers for v in layer.args}
        bends = {diff(layer, v, w): 0 * x for layer in layers for v in layer.args for w in layer.args}
        named = expression.subs(beta, 0).xreplace({**slopes, **bends})
        settled = named.xreplace(dict(zip(layers, h, strict=True)))
        return settled.xreplace({name: slope for slope, name in slopes.items()})

    yield Step("Free, nothing pulls on any unit:", Matrix([free(force) for force in forces]), Matrix([0, 0, 0]),
               name=r"\frac{\partial E}{\partial h}")  # fmt: skip
    yield Step("nor on any weight.", Matrix([free(diff(energy, one)) for one in theta]), Matrix([0, 0, 0]),
               name=r"\frac{\partial E}{\partial \theta}")  # fmt: skip
    back = [diff(cost, h[2])]
    for k in (2, 1):
        back.insert(0, diff(layers[k], h[k - 1]) * back[0])
    for k in range(3):
        yield Step(
            f"The error of layer {k + 1} under a nudge is minus the one that back-propagation sends there.",
            free(branch.derivative(errors[k], beta)),
            -back[k],
            name=rf"\frac{{d\epsilon_{k + 1}}}{{d\beta}}",
        )
        yield Step(
            "So the response of dE/dtheta is the gradient.",
            free(branch.derivative(diff(energy, theta[k]), beta)),
            back[k] * diff(layers[k], theta[k]),
            name=rf"\frac{{dL}}{{d\theta_{k + 1}}}",
        )
    strength, raised = Symbol("beta", positive=True), Symbol("delta", nonnegative=True)
    shown = Symbol("C_0", real=True)
    yield Step(
        "The nudged minimum over beta penalises what is not predicted, and bounds the cost from below.",
        (strength * shown - raised) / strength,
        shown,
        margin=raised / strength,
        name=r"L_\beta",
    )


@provable(
    "feed-forward-residual",
    faults={
        "single weights": "a forward pass that does not stand in for what comes from above",
        "outputs doubled": "the output layer doubled as well, though nothing is above it",
    },
)
def feed_forward_residual(fault: Planted) -> Iterator[Step]:
    activation = Function("rho", real=True)
    bias, up, down, small = symbols("b r_up r_down delta", real=True)
    factor = 1 if fault("single weights") else 2
    begun = activation(bias + factor * up)
    wanted = lambda above: activation(bias + up + above)
    yield Step("If the inputs agree the forward pass is at rest.", begun, wanted(up), name=r"h_k")
    linear, gain = Symbol("rho_0", real=True), Symbol("rho'", real=True)
    slope = lambda drive: linear + gain * drive
    yield Step(
        "If not, it misses the fixed point by what they differ by, times the slope of the unit.",
        slope(factor * up) - slope(up + down),
        gain * (up - down),
        name=r"h_k - \rho(\dots)",
    )
    e, k = symbols("e k", real=True)
    curved = lambda drive: linear + gain * drive + e * drive**2 + k * drive**3
    miss = expand(curved(factor * up) - curved(up + up - small))
    yield Step(
        "Of a unit that bends: by its slope at that drive, to first order.",
        coefficient(miss, small, 1),
        diff(curved(small), small).subs(small, 2 * up),
    )
    yield Step("and by nothing of order zero.", coefficient(miss, small, 0), Integer(0))
    output = 2 if fault("outputs doubled") else 1
    yield Step("The outputs hear only what is below.", activation(bias + output * up), wanted(0), name="o")
    h, x, o, w, v = symbols("h x o W_1 W_2", real=True)
    energy = (h**2 + o**2) / 2 - w * x * h - v * h * o - bias * (h + o)
    pass_1 = bias + factor * w * x
    pass_2 = bias + output * v * pass_1
    pull = lambda variable: -diff(energy, variable).subs({h: pass_1, o: pass_2}, simultaneous=True)
    yield Step(
        "In a Hopfield network the force left on the hidden units is the difference of their inputs,",
        pull(h),
        v * pass_2 - w * x,
        name=r"-\frac{\partial E}{\partial h}",
    )
    yield Step("and on the outputs there is none.", pull(o), Integer(0), name=r"-\frac{\partial E}{\partial o}")
