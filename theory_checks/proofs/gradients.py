"""Proofs about two equilibria: what their contrast is the gradient of, how far off at finite beta, and its bounds."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Iterator

from sympy import (
    Derivative,
    Eq,
    Expr,
    I,
    Integer,
    Integral,
    Matrix,
    Rational,
    Symbol,
    diff,
    exp,
    expand,
    expand_complex,
    pi,
    solve,
    symbols,
)

from theory_checks.proofs.algebra import Branch, NudgedSystem, coefficient, curl
from theory_checks.proofs.proof import Planted, Step, provable

BETA = Symbol("beta", positive=True)


@provable(
    "equilibrium-propagation",
    faults={
        "no energy": "the force has a curl: its Jacobian is no symmetric Hessian",
        "nudge of the wrong sign": "the nudged force pulls towards a greater cost",
    },
)
def equilibrium_propagation(fault: Planted) -> Iterator[Step]:
    system = NudgedSystem()
    theta, beta, energy = system.theta, system.beta, system.energy
    branch = system.branch
    if fault("no energy"):
        branch = curl(branch, Symbol("a", real=True))
    if fault("nudge of the wrong sign"):
        branch = Branch([diff(energy - beta * system.cost, s) for s in system.state], system.state)
    grip = Matrix([diff(energy, theta, s) for s in system.state])
    yield Step(
        "Envelope theorem: the minimum rises with beta by the cost, for the state does not count where F is at rest.",
        system.at_rest(branch.derivative(system.total, beta)),
        system.cost,
        name=r"\frac{d}{d\beta} F(s_\beta)",
    )
    yield Step(
        "Likewise with theta: by the derivative at fixed state.",
        system.at_rest(branch.derivative(system.total, theta)),
        diff(energy, theta),
        name=r"\frac{d}{d\theta} F(s_\beta)",
    )
    yield Step(
        "The state answers a nudge by the inverse Hessian.",
        branch.velocity(beta),
        -Matrix(2, 2, lambda i, j: diff(system.forces[i], system.state[j])).inv("ADJ") * system.cost_gradient,
        name=r"\frac{ds_\beta}{d\beta}",
    )
    yield Step(
        "So the gradient of the cost at equilibrium is the response of dE/dtheta to the nudge, at every beta.",
        branch.derivative(system.cost, theta),
        branch.derivative(diff(energy, theta), beta),
        name=r"\frac{dL}{d\theta}",
    )
    yield Step(
        "Both are the implicit gradient.",
        branch.derivative(diff(energy, theta), beta),
        -(grip.T * system.branch.inverse * system.cost_gradient)[0],
        name=r"\frac{d}{d\beta}\frac{\partial E}{\partial\theta}",
    )


@provable(
    "bias-orders",
    faults={
        "whole for a half": "the one-sided bias taken as the whole second derivative",
        "uneven nudges": "the two nudges of the centred estimate of different strengths",
        "curvature of the cost forgotten": "the curvature of F taken as that of E alone",
    },
)
def bias_orders(fault: Planted) -> Iterator[Step]:
    system = NudgedSystem(size=1)
    branch, beta, theta, (s,) = system.branch, system.beta, system.theta, system.state
    slope, bend = diff(system.cost, s), diff(system.cost, s, 2)
    stiff, cubic = (diff(system.total, s, order) for order in (2, 3))
    if fault("curvature of the cost forgotten"):
        stiff = diff(system.energy, s, 2)
    second = branch.derivative(system.cost, beta)
    yield Step("The second derivative of the minimum.", second, -(slope**2) / stiff, name="m_2")
    third = branch.derivative(second, beta)
    right = 3 * slope**2 * bend / stiff**2 - slope**3 * cubic / stiff**3
    yield Step("The third.", third, right, name="m_3")
    reading = diff(system.energy, theta)
    twice = branch.derivative(branch.derivative(reading, beta), beta)
    yield Step(
        "The reading g = dE/dtheta bends with beta by the gradient of m2.",
        twice,
        branch.derivative(second, theta),
        name=r"\frac{d^2 g}{d\beta^2}",
    )
    yield Step(
        "And its third derivative is the gradient of m3.",
        branch.derivative(twice, beta),
        branch.derivative(third, theta),
        name=r"\frac{d^3 g}{d\beta^3}",
    )
    g = symbols("g_0:5")
    read = lambda b: sum(g[k] * b**k / (1 if k < 2 else 2 if k == 2 else 6 if k == 3 else 24) for k in range(5))
    one_sided = expand((read(BETA) - read(0)) / BETA - g[1])
    half = 1 if fault("whole for a half") else Rational(1, 2)
    yield Step("The one-sided error, by Taylor's series of g.", coefficient(one_sided, BETA, 1), half * g[2])
    weak = -BETA / 2 if fault("uneven nudges") else -BETA
    centred = expand((read(BETA) - read(weak)) / (BETA - weak) - g[1])
    yield Step("Centred, nothing is left of first order.", coefficient(centred, BETA, 1), 0 * g[2])
    yield Step("Of second order, a sixth of the third derivative.", coefficient(centred, BETA, 2), g[3] / 6)


@provable(
    "finite-beta-surrogate",
    faults={
        "stopped early": "the nudged state read before it is at rest",
        "divided by the stronger nudge": "the contrast divided by beta_2 and not by beta_2 - beta_1",
    },
)
def finite_beta_surrogate(fault: Planted) -> Iterator[Step]:
    first, second = NudgedSystem(name="s", beta=Symbol("beta_1")), NudgedSystem(name="r", beta=Symbol("beta_2"))
    low, high, theta = first.beta, second.beta, first.theta
    pair = Branch(first.forces + second.forces, first.state + second.state)
    surrogate = (second.total - first.total) / (high - low)
    rest = first.at_rest if fault("stopped early") else lambda expression: second.at_rest(first.at_rest(expression))
    over = high if fault("divided by the stronger nudge") else high - low
    contrast = (diff(second.energy, theta) - diff(first.energy, theta)) / over
    yield Step(
        "The gradient of the difference of the two minima is the contrast: no state need be differentiated.",
        rest(pair.derivative(surrogate, theta)),
        contrast,
        name=r"\frac{d}{d\theta} L_{\beta_1,\beta_2}",
    )
    yield Step(
        "The difference of the minima grows with beta_2 by the cost there, so the surrogate is a mean of costs.",
        rest(pair.derivative((high - low) * surrogate, high)),
        second.cost,
        name=r"\frac{d}{d\beta_2} (\beta_2-\beta_1) L_{\beta_1,\beta_2}",
    )
    k, pull, y, b = symbols("k theta y b", positive=True)
    at = lambda strength: (pull + strength * y) / (k + strength)
    least = lambda strength: k * at(strength) ** 2 / 2 - pull * at(strength) + strength * (at(strength) - y) ** 2 / 2
    yield Step(
        "On a spring the mean of the cost can be integrated.",
        Integral((at(b) - y) ** 2 / 2, (b, 0, BETA)) / BETA,
        (least(BETA) - least(0)) / (BETA if not fault("divided by the stronger nudge") else BETA + 1),
        name=r"L_{0,\beta}",
    )
    yield Step(
        "And the contrast is its gradient there.",
        Derivative((least(BETA) - least(0)) / BETA, pull),
        (-at(BETA / 2 if fault("stopped early") else BETA) + at(0)) / BETA,
        name=r"\frac{d}{d\theta} L_{0,\beta}",
    )


@provable(
    "sandwich-bounds",
    faults={
        "saddle": "one direction in which F is greatest",
        "not the lowest": "a nudged state that may lie above the free one",
    },
)
def sandwich_bounds(fault: Planted) -> Iterator[Step]:
    system = NudgedSystem()
    gradient = system.cost_gradient
    yield Step(
        "The cost falls with beta in the metric of the inverse Hessian.",
        system.branch.derivative(system.cost, system.beta),
        -(gradient.T * system.branch.inverse * gradient)[0],
        name=r"\frac{dC}{d\beta}",
    )
    a, d = symbols("l_11 l_22", positive=True)
    factor = Matrix([[a, 0], [Symbol("l_21", real=True), d]])
    hessian = factor * (Matrix.diag(1, -1) if fault("saddle") else Matrix.eye(2)) * factor.T
    slope = Matrix(symbols("c_1 c_2", real=True))
    yield Step(
        "At a minimum the Hessian is L L', so that metric is a sum of squares: the minimum of F is concave.",
        -(slope.T * hessian.inv("ADJ") * slope)[0],
        Integer(0),
        margin=sum((one**2 for one in factor.inv() * slope), Integer(0)),
        name=r"\frac{d^2}{d\beta^2} \min_s F",
    )
    sign = {"real": True} if fault("not the lowest") else {"nonnegative": True}
    above, below = symbols("delta_1 delta_2", **sign)
    free, cost = symbols("E_0 C_0", real=True)
    yield Step(
        "The free state, nudged, lies delta_1 above the nudged minimum: a positive nudge bounds L from below.",
        ((free + BETA * cost - above) - free) / BETA,
        cost,
        margin=above / BETA,
        name=r"L_{0,\beta}",
    )
    yield Step(
        "A negative nudge bounds it from above.",
        cost,
        (free - (free - BETA * cost - below)) / BETA,
        margin=below / BETA,
        name="L",
    )
    other, dearer, start = symbols("E_1 C_1 beta_1", real=True)
    total = lambda energy, price, strength: energy + strength * price
    weak = Eq(total(other, dearer, start), total(free, cost, start) + above)
    strong = Eq(total(free, cost, start + BETA), total(other, dearer, start + BETA) + below)
    yield Step(
        "Two minima, each lowest at its own strength: the cost at the stronger nudge is not the greater.",
        solve([weak, strong], [other, dearer], dict=True)[0][dearer],
        cost,
        margin=(above + below) / BETA,
        name=r"C(s_{\beta_1+\beta})",
    )


def circle(count: int, radius: Symbol, spread: int) -> list[tuple[Expr, Expr]]:
    """Strengths of `count` nudges on a circle of which a full turn holds `spread`, each with its conjugate phase."""
    turn = lambda k: expand_complex(exp(2 * pi * I * k / spread))
    return [(radius * turn(k), turn(-k)) for k in range(count)]


@provable(
    "holomorphic",
    faults={
        "half a circle": "the points do not go all around the circle",
        "phases not turned back": "the readings averaged without their conjugate phases",
    },
)
def holomorphic(fault: Planted) -> Iterator[Step]:
    r, t = symbols("r t", positive=True)
    for count in (2, 3, 4, 6):
        terms = symbols(f"g_0:{2 * count + 2}")
        read = lambda b, terms=terms: sum(g * b**k for k, g in enumerate(terms))
        points = circle(count, r, 2 * count if fault("half a circle") else count)
        back = (lambda phase: Integer(1)) if fault("phases not turned back") else (lambda phase: phase)
        estimate = expand(sum(read(b) * back(phase) for b, phase in points) / (count * r))
        yield Step(
            f"{count} on the circle: of Taylor's coefficients the first survives, and each {count} further on.",
            estimate,
            sum(terms[k] * r ** (k - 1) for k in range(1, len(terms), count)),
        )
        yield Step(
            "The mean of the readings is the free one to the same order.",
            expand(sum(read(b) for b, _ in points) / count),
            sum(terms[k] * r**k for k in range(0, len(terms), count)),
        )
    terms = symbols("g_0:6")
    lap = sum(g * r**k * exp(I * k * t) for k, g in enumerate(terms))
    phase = 1 if fault("phases not turned back") else exp(-I * t)
    turn = pi if fault("half a circle") else 2 * pi
    yield Step("All around the circle: exact at any radius.", Integral(expand(lap * phase), (t, 0, turn)) / (turn * r),
               terms[1])  # fmt: skip
