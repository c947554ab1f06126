"""Proofs about systems at a temperature: free energies, mean values and fluctuations."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sympy import Derivative, Expr, Function, Integer, Integral, Symbol, diff, exp, log, oo, symbols

from theory_checks.proofs.proof import Planted, Step, provable

STATES = 3
TEMPERATURE, THETA, BETA = Symbol("T", positive=True), Symbol("theta", real=True), Symbol("beta", real=True)
ENERGIES = [Function(f"E_{k}", real=True)(THETA) for k in range(1, STATES + 1)]


def mean(values: Sequence[Expr], weights: Sequence[Expr]) -> Expr:
    """The mean of values with weights that need not be normalised."""
    return sum((v * w for v, w in zip(values, weights, strict=True)), Integer(0)) / sum(weights, Integer(0))


@provable(
    "stochastic",
    scope="systems of three states",
    faults={
        "hotter": "states drawn at another temperature than the free energy's",
        "not in equilibrium": "one state more likely than its energy makes it",
    },
)
def stochastic(fault: Planted) -> Iterator[Step]:
    costs = symbols(f"C_1:{STATES + 1}", real=True)
    totals = [e + BETA * c for e, c in zip(ENERGIES, costs, strict=True)]
    heat = 2 * TEMPERATURE if fault("hotter") else TEMPERATURE
    weights = [exp(-total / heat) for total in totals]
    if fault("not in equilibrium"):
        weights[0] *= exp(BETA * THETA)
    free = -TEMPERATURE * log(sum(exp(-total / TEMPERATURE) for total in totals))
    slopes = [diff(e, THETA) for e in ENERGIES]
    yield Step(
        "The free energy rises with beta by the mean cost,",
        Derivative(free, BETA),
        mean(costs, weights),
        name=r"\langle C\rangle_\beta",
    )
    yield Step("with theta by the mean derivative.", Derivative(free, THETA), mean(slopes, weights))
    yield Step(
        "So the gradient of the mean cost is the response of the mean derivative, at every beta.",
        diff(mean(costs, weights), THETA),
        diff(mean(slopes, weights), BETA),
        name=r"\frac{d}{d\theta}\langle C\rangle_\beta",
    )
    read = lambda beta: mean(slopes, weights).subs(BETA, beta)
    yield Step(
        "And the difference of two readings is the exact gradient of the difference of the free energies.",
        diff(free - free.subs(BETA, 0), THETA),
        read(BETA) - read(0),
    )
    fall = diff(mean(costs, weights), BETA)
    first, second = costs[0], costs[1]
    pair = fall.subs({costs[2]: 0, ENERGIES[2]: ENERGIES[1]}).subs(second, 0)
    odds = exp(-(ENERGIES[0] + BETA * first) / TEMPERATURE), 2 * exp(-ENERGIES[1] / TEMPERATURE)
    yield Step(
        "The mean cost never grows with beta, here with a cost of the first state alone.",
        pair.doit(),
        Integer(0),
        margin=first**2 * odds[0] * odds[1] / (TEMPERATURE * (odds[0] + odds[1]) ** 2),
        name=r"\frac{d}{d\beta} \langle C\rangle_\beta",
    )


@provable(
    "gibbs",
    scope="systems of three states, and a spring",
    faults={
        "temperature forgotten": "the covariance not divided by T",
        "second moment": "the mean of the product in place of the covariance",
    },
)
def gibbs(fault: Planted) -> Iterator[Step]:
    heat = 1 if fault("temperature forgotten") else TEMPERATURE
    product_of_means = 0 if fault("second moment") else 1
    costs = [Function(f"C_{k}", real=True)(THETA) for k in range(1, STATES + 1)]
    weights = [exp(-e / TEMPERATURE) for e in ENERGIES]
    slopes = [diff(e, THETA) for e in ENERGIES]
    joint = mean([c * s for c, s in zip(costs, slopes, strict=True)], weights)
    covariance = joint - product_of_means * mean(costs, weights) * mean(slopes, weights)
    yield Step(
        "Of any energies and costs of a system with three states.",
        diff(mean(costs, weights), THETA),
        mean([diff(c, THETA) for c in costs], weights) - covariance / heat,
        name=r"\frac{dL}{d\theta}",
    )
    k = Symbol("k", positive=True)
    s, c1, c2 = symbols("s c_1 c_2", real=True)
    weight = exp(-k * s**2 / (2 * TEMPERATURE))
    moment = lambda order: Integral(s**order * weight, (s, -oo, oo)).doit() / Integral(weight, (s, -oo, oo)).doit()
    centre = THETA / k
    cost = c1 * (s + centre) + c2 * (s + centre) ** 2 / 2
    over = lambda polynomial: sum(polynomial.expand().coeff(s, order) * moment(order) for order in range(5))
    slope = -(s + centre)
    fluctuating = over(cost * slope) - product_of_means * over(cost) * over(slope)
    yield Step(
        "Of a spring pulled by theta, with a cost that bends.",
        -fluctuating / heat,
        Derivative(over(cost), THETA),
        name=r"\frac{dL}{d\theta}",
    )
    yield Step(
        "It is the implicit gradient, -(d2E/dtheta ds) (1/k) dC/ds, here at every temperature.",
        -fluctuating / heat,
        (c1 + c2 * centre) / k,
    )
