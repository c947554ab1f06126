"""Proofs about outputs that are held, and about parameters that are physical and relax with the state."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Iterator

from sympy import (
    Derivative,
    Function,
    Integer,
    Limit,
    Matrix,
    Symbol,
    cosh,
    diff,
    expand,
    oo,
    sinh,
    solve,
    symbols,
)

from theory_checks.proofs.algebra import Branch, coefficient
from theory_checks.proofs.proof import Planted, Step, provable

EPSILON = Symbol("epsilon", positive=True)
THETA = Symbol("theta", real=True)


@provable(
    "agnostic-step",
    scope=r"control energies $|u - \theta|^2/2\epsilon$",
    faults={
        "no homeostasis": "the knobs left where the parameters are",
        "uneven nudges": "centred nudges of different strengths",
    },
)
def agnostic_step(fault: Planted) -> Iterator[Step]:
    low, high, knob = symbols("beta_1 beta_2 u", real=True)
    f = {(i, j): Symbol(f"f_{i}{j}", real=True) for i in range(4) for j in range(4)}
    # the minimum over the state, a general function of beta and theta about theta = 0, to third order in each
    minimum = lambda strength, theta: sum(f[i, j] * strength**i * theta**j for i in range(4) for j in range(4))
    pull = lambda strength, theta: diff(minimum(strength, THETA), THETA).subs(THETA, theta)
    held = 0 if fault("no homeostasis") else solve((0 - knob) / EPSILON + pull(low, 0), knob)[0]
    yield Step(
        "At rest in the first phase the knob stands off by epsilon times the pull on the parameter.",
        held,
        EPSILON * diff(minimum(low, THETA), THETA).subs(THETA, 0),
        name=r"u - \theta_{t-1}",
    )
    fixed_point = lambda guess: expand(held - EPSILON * pull(high, guess))
    moved = fixed_point(fixed_point(Integer(0)))
    surrogate = (minimum(high, THETA) - minimum(low, THETA)) / (high - low)
    slope = diff(surrogate, THETA).subs(THETA, 0)
    yield Step(
        "To first order in epsilon the step descends the surrogate.",
        coefficient(moved, EPSILON, 1),
        -(high - low) * slope,
    )
    yield Step(
        "To second order it is again as small as the difference of the nudges.",
        coefficient(moved, EPSILON, 2),
        (high - low) * slope * diff(minimum(high, THETA), THETA, 2).subs(THETA, 0),
    )
    gap = Symbol("beta", positive=True)
    sides = {low: -gap / 3 if fault("uneven nudges") else -gap / 2, high: gap / 2}
    first = coefficient(moved, EPSILON, 1)
    one_sided = expand(first.subs({low: 0, high: gap}, simultaneous=True) / gap)
    centred = expand(first.subs(sides, simultaneous=True) / (sides[high] - sides[low]))
    true = diff(minimum(gap, THETA), gap, THETA).subs({gap: 0, THETA: 0})
    yield Step("One-sided it is the gradient of L,", one_sided.subs(gap, 0), -true)
    yield Step("up to an error of first order;", coefficient(one_sided, gap, 1), -f[2, 1])
    yield Step("centred,", centred.subs(gap, 0), -true)
    yield Step("there is none of first order.", coefficient(centred, gap, 1), Integer(0))


@provable(
    "agnostic-lyapunov",
    faults={
        "critical point": "homeostasis at some critical point, not at a minimum",
        "moving knobs": "knobs that are moved between the phases",
    },
)
def agnostic_lyapunov(fault: Planted) -> Iterator[Step]:
    control = Function("U", real=True)
    knob, other, before, after = symbols("u v theta_{t-1} theta_t", real=True)
    least = Function("m", real=True)
    low, gap = Symbol("beta_1", real=True), Symbol("Delta", positive=True)
    high = low + gap
    second_knob = other if fault("moving knobs") else knob
    first_slack = Symbol("delta_1", **({"real": True} if fault("critical point") else {"nonnegative": True}))
    second_slack = Symbol("delta_2", nonnegative=True)
    total = lambda u, strength, theta: control(u, theta) / EPSILON + least(strength, theta)
    held, free = Symbol("x", real=True), Symbol("y", real=True)
    holds = total(knob, low, after).subs(least(low, after), held) - total(knob, low, before) - first_slack
    falls = total(second_knob, high, before) - total(second_knob, high, after).subs(least(high, after), free)
    values = {least(low, after): solve(holds, held)[0], least(high, after): solve(falls - second_slack, free)[0]}
    yield Step(
        "The first phase has its minimum where theta is held.",
        total(knob, low, before),
        total(knob, low, after).subs(values),
        margin=first_slack,
    )
    yield Step(
        "The second ends no higher than it began, with the same knobs.",
        total(knob, high, after).subs(values),
        total(knob, high, before),
        margin=second_slack,
    )
    surrogate = lambda theta: (least(high, theta) - least(low, theta)) / gap
    yield Step(
        "Added up, the control energy cancels, and the surrogate has not grown.",
        surrogate(after).subs(values),
        surrogate(before),
        margin=(first_slack + second_slack) / gap,
        name=r"L_{\beta_1,\beta_2}(\theta_t)",
    )


@provable(
    "agnostic-metric",
    faults={
        "mixed curvature": "the curvature of U in knob and parameter in place of M",
        "metric forgotten": "the step taken as that of a flat metric",
    },
)
def agnostic_metric(fault: Planted) -> Iterator[Step]:
    knobs, thetas, start = symbols("u_1:3", real=True), symbols("theta_1:3", real=True), symbols("a_1:3", real=True)
    control = Function("U", real=True)(*knobs, *thetas)
    low, high = (Matrix([Symbol(f"{name}_{i}", real=True) for i in (1, 2)]) for name in ("f", "g"))
    slope = Matrix([diff(control, theta) for theta in thetas])
    held = slope.xreplace(dict(zip(thetas, start, strict=True))) + EPSILON * low
    released = slope + EPSILON * high
    branch = Branch([*held, *released], [*knobs, *thetas])
    at_start = dict(zip(thetas, start, strict=True))
    velocity = branch.velocity(EPSILON).subs(EPSILON, 0)[2:, :].xreplace(at_start)
    metric = slope.jacobian(knobs if fault("mixed curvature") else thetas).xreplace(at_start)
    if fault("metric forgotten"):
        metric = Matrix.eye(2)
    yield Step(
        "Where f and g are the pulls dF/dtheta of the two phases, the parameters move against g - f in the metric.",
        velocity,
        -metric.inv("ADJ") * (high - low),
        name=r"\frac{d\theta}{d\epsilon}|_0",
    )
    p, q, r = symbols("p q r", real=True)
    well, warp = Matrix([[p, q], [q, r]]), Matrix([sinh(theta) for theta in thetas])
    off = warp - Matrix(knobs)
    energy = (off.T * well * off)[0] / 2
    curvature = Matrix(2, 2, lambda i, j: diff(energy, thetas[i], thetas[j])).subs(
        dict(zip(knobs, warp, strict=True)), simultaneous=True
    )
    scale = Matrix.diag(*(1 if fault("metric forgotten") else cosh(theta) for theta in thetas))
    yield Step("For example, U = (sinh theta - u)' Q (sinh theta - u) / 2.", curvature, scale * well * scale, name="M")


@provable(
    "contrastive-objective",
    faults={
        "hidden units frozen": "the hidden units kept where they were in the free state",
        "susceptibility not inverted": "the response of the outputs in place of its inverse",
    },
)
def contrastive_objective(fault: Planted) -> Iterator[Step]:
    h, o, k, y = symbols("h o k y", real=True)
    energy = Function("E", real=True)
    free, clamped = energy(THETA, h, o), energy(THETA, k, y)
    pair = Branch([diff(free, h), diff(free, o), diff(clamped, k)], [h, o, k])
    rest = {diff(free, h): 0, diff(free, o): 0, diff(clamped, k): 0}
    if fault("hidden units frozen"):
        del rest[diff(clamped, k)]
    yield Step(
        "No state need be differentiated where each is at rest.",
        pair.derivative(clamped - free, THETA).xreplace(rest),
        diff(clamped, THETA) - diff(free, THETA),
        name=r"\frac{d}{d\theta} L_{CL}",
    )
    a, b, c, p, q, r = symbols("a b c p q r", positive=True)
    factor = Matrix([[a, 0, 0], [b, c, 0], [p, q, r]])
    hessian = factor * factor.T  # of any stable system of one hidden unit and two outputs, about its free state
    hidden, wanted = Symbol("h", real=True), Matrix(symbols("d_1 d_2", real=True))
    at = Matrix([hidden, *wanted])
    raised = (at.T * hessian * at)[0] / 2
    settled = 0 if fault("hidden units frozen") else solve(diff(raised, hidden), hidden)[0]
    chi = hessian.inv("ADJ")[1:, 1:]
    stiffness = chi if fault("susceptibility not inverted") else chi.inv("ADJ")
    yield Step(
        "About the free state it costs the energy of a spring whose compliance is how the outputs respond.",
        raised.subs(hidden, settled),
        (wanted.T * stiffness * wanted)[0] / 2,
        name="L_{CL}",
    )
    yield Step(
        "That is never negative, and zero only where the outputs are right.",
        Integer(0),
        (wanted.T * stiffness * wanted)[0] / 2,
        margin=(c * wanted[0] + q * wanted[1]) ** 2 / 2 + r**2 * wanted[1] ** 2 / 2,
    )


@provable(
    "coupled-objective",
    faults={
        "susceptibility forgotten": "the errors taken as they are, as in equilibrium propagation",
        "hidden units frozen": "the hidden units kept where they were in the free state",
    },
)
def coupled_objective(fault: Planted) -> Iterator[Step]:
    h, o1, o2, y1, y2, eta = symbols("h o_1 o_2 y_1 y_2 eta", real=True)
    for outputs, targets in (((o1,), (y1,)), ((o1, o2), (y1, y2))):
        energy = Function("E", real=True)(THETA, h, *outputs)
        state = (h, *outputs)
        free = Branch([diff(energy, s) for s in state], state)
        error = Matrix([y - o for y, o in zip(targets, outputs, strict=True)])
        held = Branch([diff(energy, h)], [h])
        follows = [0 if fault("hidden units frozen") else held.velocity(o)[0] for o in outputs]
        reading = diff(energy, THETA)
        contrast = sum(
            (diff(reading, o) + diff(reading, h) * follow) * e
            for o, follow, e in zip(outputs, follows, error, strict=True)
        )
        chi = free.inverse[1:, 1:]
        stiffness = Matrix.eye(len(outputs)) if fault("susceptibility forgotten") else chi.inv("ADJ")
        moves = free.velocity(THETA)[1:, :]
        yield Step(
            f"With {len(outputs)} of the outputs: the contrast over eta, by the response to the clamp.",
            contrast,
            -(moves.T * stiffness * error)[0],
            name=r"\frac{d}{d\eta} \frac{\partial E}{\partial\theta}",
        )
    one = Branch([diff(Function("E", real=True)(THETA, h, o1), s) for s in (h, o1)], (h, o1))
    cost = (o1 - y1) ** 2 / 2
    compliance = 1 if fault("susceptibility forgotten") else one.inverse[1, 1]
    follow = 0 if fault("hidden units frozen") else Branch([one.residual[0]], [h]).velocity(o1)[0]
    reading = diff(Function("E", real=True)(THETA, h, o1), THETA)
    yield Step(
        "With one output it is the gradient over the compliance: the same direction.",
        (diff(reading, o1) + diff(reading, h) * follow) * (y1 - o1) * compliance,
        one.derivative(cost, THETA),
        name=r"\chi \frac{d}{d\eta} \frac{\partial E}{\partial\theta}",
    )
    target = o1 + eta * (y1 - o1)
    shape = symbols("e_1:4", real=True)
    raised = shape[0] * (target - o1) ** 2 / 2
    yield Step(
        "The clamp moves with the free output, so that at finite eta the contrast is not the gradient of what it "
        "raises: it lacks this part.",
        diff(raised, o1) * Derivative(Function("o")(THETA), THETA),
        -(eta**2) * shape[0] * (y1 - o1) * Derivative(Function("o")(THETA), THETA),
    )


@provable(
    "force-matching",
    faults={
        "spring not nudged": "the spring's own strength forgotten in the cost",
        "spring without stiffness": "the response taken as that of the system without its spring",
    },
)
def force_matching(fault: Planted) -> Iterator[Step]:
    x, start, wanted, small = symbols("x x_0 v kappa", real=True)
    k, beta = Symbol("k", positive=True), Symbol("beta", real=True)
    energy = Function("E", real=True)(THETA, x)
    lever = 1 if fault("spring not nudged") else k
    cost = (lever * (x - start) - wanted) ** 2 / 2
    held = energy if fault("spring without stiffness") else energy + k * (x - start) ** 2 / 2
    branch = Branch([diff(held + beta * cost, x)], [x])
    response = branch.derivative(diff(energy, THETA), beta).subs(beta, 0)
    yield Step(
        "The contrast is the gradient of the cost at any k.",
        response,
        branch.derivative(cost, THETA).subs(beta, 0),
        name=r"\frac{d}{d\beta} \frac{\partial E}{\partial\theta}",
    )
    grip, stiff, pull = symbols("f_theta E'' f", real=True)
    named = {diff(energy, x, THETA): -grip, diff(energy, x, 2): stiff}
    settled = response.xreplace(named).subs(x, start + pull / k)
    yield Step(
        "At rest the spring pulls back by the force, k (x - x_0) = f; in the limit of a stiff spring:",
        Limit(settled, k, oo),
        (pull - wanted) * grip,
        name=r"\frac{dL}{d\theta}",
    )
    expanded = coefficient(expand((settled.subs(k, 1 / small)).simplify()), small, 1)
    yield Step(
        "What is left of first order in 1 / k at that place: the system's own stiffness against the spring's.",
        expanded,
        -stiff * (pull - wanted) * grip,
    )
    f_at = Function("f", real=True)(x)
    moved = Branch([x - start - small * f_at], [x]).derivative((f_at - wanted) ** 2 / 2, small)
    yield Step(
        "And the place itself gives by f / k, which changes the loss by",
        moved.subs(small, 0),
        (f_at - wanted) * f_at * diff(f_at, x),
        name=r"\frac{d}{d(1/k)} \frac{|f - v|^2}{2}",
    )
