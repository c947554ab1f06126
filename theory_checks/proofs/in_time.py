"""Proofs about equilibria reached step by step, and about systems that move: trajectories and their echoes."""

# SymPy annotates its functions as wider than what they return:
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportUnhashable=false

from __future__ import annotations

import itertools
from collections.abc import Iterator

from sympy import (
    Derivative,
    Expr,
    Function,
    Integer,
    Integral,
    Limit,
    Matrix,
    Symbol,
    diff,
    exp,
    expand,
    oo,
    symbols,
)

from theory_checks.proofs.algebra import coefficient
from theory_checks.proofs.proof import Planted, Step, provable

BETA, ETA = symbols("beta eta", positive=True)


@provable(
    "temporal-identity",
    faults={
        "no energy": "a Jacobian that is not symmetric",
        "not from the free state": "the nudged phase starts beside the free state",
    },
)
def temporal_identity(fault: Planted) -> Iterator[Step]:
    t = Symbol("t", nonnegative=True)
    u = Matrix([Function(f"u_{i}", real=True)(t) for i in (1, 2)])
    a, b, d = symbols("h_11 h_12 h_22", real=True)
    other = Symbol("h_21", real=True) if fault("no energy") else b
    H, c, grip = Matrix([[a, b], [other, d]]), Matrix(symbols("c_1 c_2")), Matrix([symbols("b_1 b_2")])
    s = Matrix(symbols("s_1 s_2", real=True))
    squares = Matrix([s[0] ** 2, s[0] * s[1], s[1] ** 2])
    cubic = Matrix([symbols("k_1 k_2 k_3"), symbols("k_4 k_5 k_6")]) * squares
    force = -(H * s + cubic) - BETA * (c + Matrix([[symbols("q_11"), symbols("q_12")], symbols("q_12 q_22")]) * s)
    moved = force.subs(dict(zip(s, BETA * u, strict=True)))
    flow = moved.applyfunc(lambda entry: coefficient(entry, BETA, 1))
    yield Step("To first order in beta the displacement u flows so.", flow, -(H * u) - c, name=r"\dot u")
    error = -flow
    on_flow = dict(zip(u.diff(t), flow, strict=True))
    yield Step(
        "The negative velocity obeys the equation of the back-propagated error, with the transposed Jacobian.",
        error.diff(t).xreplace(on_flow),
        -H.T * error,
        name=r"\frac{d}{dt} \bar s",
    )
    begin = Matrix(symbols("r_1 r_2")) if fault("not from the free state") else Matrix([0, 0])
    yield Step(
        "It starts at the gradient of the cost.",
        error.subs(dict(zip(u, begin, strict=True))),
        c,
        name=r"\bar s(0)",
    )
    yield Step(
        "The reading grows by the error, as the back-propagated gradient does.",
        (grip * u).diff(t).xreplace(on_flow),
        -grip * error,
        name=r"\frac{d}{dt} \bar\theta",
    )
    h, force_0 = symbols("h c", positive=True)
    shift = Symbol("r", positive=True) if fault("not from the free state") else 0
    solved = -force_0 / h * (1 - exp(-h * t)) + shift * exp(-h * t)
    yield Step("Of one normal mode, in full.", -Derivative(solved, t), force_0 * exp(-h * t), name=r"\bar s(t)")
    yield Step("In the end stands the implicit gradient.", Limit(solved, t, oo), -force_0 / h)


def smooth_map(fault: Planted, theta: Expr, s: Matrix) -> Matrix:
    """dPhi/ds of a general primitive function about its fixed point s = 0 at theta = 0, by its Taylor coefficients."""
    m11, m12, m22, b1, b2, e1, e2, e3, e4, k = symbols("m_11 m_12 m_22 b_1 b_2 e_1:5 k", real=True)
    x, y = s
    primitive = (
        (m11 * x**2 + 2 * m12 * x * y + m22 * y**2) / 2
        + (e1 * x**3 + 3 * e2 * x**2 * y + 3 * e3 * x * y**2 + e4 * y**3) / 6
        + theta * (b1 * x + b2 * y + k * x * y)
    )
    pushed = Matrix([diff(primitive, x), diff(primitive, y)])
    if fault("no primitive function"):
        pushed += Symbol("a", real=True) * Matrix([y, -x])
    return pushed


@provable(
    "gradient-descending-updates",
    faults={
        "no primitive function": "weights that are not symmetric",
        "still moving": "the free phase stopped before the steady state",
    },
)
def gradient_descending_updates(fault: Planted) -> Iterator[Step]:
    s, theta = Matrix(symbols("s_1 s_2", real=True)), Symbol("theta", real=True)
    c1, c2, q11, q12, q22 = symbols("c_1 c_2 q_11 q_12 q_22", real=True)
    loss = c1 * s[0] + c2 * s[1] + (q11 * s[0] ** 2 + 2 * q12 * s[0] * s[1] + q22 * s[1] ** 2) / 2
    pushed = smooth_map(fault, theta, s)
    rest = {s[0]: Symbol("r", real=True) if fault("still moving") else 0, s[1]: 0}
    unrolled, grip = loss, Matrix([[diff(primitive_reading(s), one) for one in s]]).subs(rest)
    for step, move in enumerate(nudged(pushed.subs(theta, 0), Matrix([diff(loss, one) for one in s]), s, rest, 3)):
        yield Step(
            f"Step {step} of the nudged phase, against the loss differentiated {step} steps before the end.",
            move,
            -Matrix([diff(unrolled, one) for one in s]).subs(rest),
            name=rf"\Delta_s({step})",
        )
        unrolled = unrolled.subs(dict(zip(s, pushed, strict=True)), simultaneous=True)
        yield Step(
            "The same of the parameter, of which that step of the free phase had a copy of its own.",
            (grip * move)[0],
            -diff(unrolled, theta).subs({**rest, theta: 0}),
            name=rf"\Delta_\theta({step})",
        )
        unrolled = unrolled.subs(theta, 0)


def primitive_reading(s: Matrix) -> Expr:
    """dPhi/dtheta of `smooth_map`'s primitive function."""
    b1, b2, k = symbols("b_1 b_2 k", real=True)
    return b1 * s[0] + b2 * s[1] + k * s[0] * s[1]


def nudged(pushed: Matrix, slope: Matrix, s: Matrix, rest: dict, count: int) -> list[Matrix]:
    """The first steps of the nudged phase over beta, beta to zero, from the state `rest`."""
    states = [Matrix(s.subs(rest))]
    for _ in range(count):
        here = dict(zip(s, states[-1], strict=True))
        states.append(pushed.subs(here, simultaneous=True) - BETA * slope.subs(here, simultaneous=True))
    moves = [after - before for before, after in itertools.pairwise(states)]
    return [move.applyfunc(lambda entry: diff(entry, BETA).subs(BETA, 0)) for move in moves]


@provable(
    "continual",
    faults={
        "eta as large as beta": "the parameters move as fast as the nudge is strong",
        "climbing": "parameters that move the other way",
    },
)
def continual(fault: Planted) -> Iterator[Step]:
    m, e, b, k, c, q = symbols("m e b k c q", real=True)
    push = lambda s, theta: m * s + e * s**2 / 2 + theta * (b + k * s) - BETA * (c + q * s)
    read = lambda s: b * s + k * s**2 / 2
    sense = -1 if fault("climbing") else 1
    rate = BETA if fault("eta as large as beta") else ETA
    states, knobs = [Integer(0)], [Integer(0)]
    free = lambda s, theta: push(s, theta) + BETA * (c + q * s)
    yield Step("The free state stays where it is.", free(states[0], knobs[0]), states[0], name="s_1")
    for _ in range(3):
        states.append(expand(push(states[-1], knobs[-1])))
        knobs.append(expand(knobs[-1] + sense * rate / BETA * (read(states[-1]) - read(states[-2]))))
    for t in range(3):
        move = expand((states[t + 1] - states[t]) / BETA)
        learnt = expand((knobs[t + 1] - knobs[t]) / rate)
        yield Step(
            f"Step {t}: as eta vanishes, and beta then, the state moves against the back-propagated error.",
            move.subs(ETA, 0).subs(BETA, 0),
            -(m**t) * c,
            name=rf"\Delta_s({t})",
        )
        yield Step(
            "And the parameter against its gradient.",
            learnt.subs(ETA, 0).subs(BETA, 0),
            -b * m**t * c,
            name=rf"\Delta_\theta({t})",
        )
    moved = expand((states[2] - states[1]) / BETA)
    yield Step(
        "To first order in eta the moving parameter disturbs the state by eta / beta times its own step.",
        Limit(expand(coefficient(moved, ETA, 1) * BETA), BETA, 0),
        -(b**2) * c,
    )


@provable(
    "lagrangian-boundary",
    scope="ends that are fixed, or a loop, alike in both phases",
    faults={
        "initial values": "position and velocity held at the start, and nothing at the end",
        "friction": "a force that comes from no Lagrangian",
    },
)
def lagrangian_boundary(fault: Planted) -> Iterator[Step]:
    t, theta, beta, mass = symbols("t theta beta m", real=True)
    q, drag = Function("q", real=True)(t, theta, beta), Symbol("gamma", positive=True)
    k2, k3, y, z = symbols("k_2 k_3 y z", real=True)
    cost = lambda x: y * x + z * x**2 / 2
    potential = lambda x: theta * x**2 / 2 + k2 * x**3 / 3 + k3 * x**4 / 4
    x = Symbol("x", real=True)
    at = lambda expression: expression.subs(x, q)
    pull = (at(-diff(potential(x), x) + beta * diff(cost(x), x))) / mass
    if fault("friction"):
        pull -= drag * q.diff(t)
    momentum = lambda parameter: mass * Derivative(q, t, parameter)
    current = momentum(beta) * q.diff(theta) - momentum(theta) * q.diff(beta)
    moving = {diff(q, t, 2, p): diff(pull, p) for p in (theta, beta)}
    reading = -at(diff(potential(x), theta))
    yield Step(
        "On stationary trajectories the two derivatives differ, at every instant, by the change of a current.",
        diff(at(cost(x)), theta) - diff(reading, beta),
        diff(current, t).doit().xreplace(moving),
        name=r"\frac{d c}{d\theta} - \frac{d}{d\beta}\frac{\partial \mathcal{L}}{\partial\theta}",
    )
    names = symbols("p^beta_0 p^theta_0 q^beta_0 q^theta_0 p^beta_T p^theta_T q^beta_T q^theta_T", real=True)
    leaving = names[4] * names[7] - names[5] * names[6] - (names[0] * names[3] - names[1] * names[2])
    fixed = (0, 1, 2, 3) if fault("initial values") else (2, 3, 6, 7)
    yield Step(
        "Ends that are held do not move with theta or beta: no current leaves, so the integrals agree.",
        leaving.subs({names[i]: 0 for i in fixed}),
        Integer(0),
        name=r"[\dots]_0^T",
    )
    around = {} if fault("initial values") else {names[i + 4]: names[i] for i in range(4)}
    yield Step("Nor does any leave a closed trajectory.", leaving.subs(around), Integer(0), name=r"[\dots]_0^T")
    T, force = Symbol("T", positive=True), Symbol("theta", real=True)
    speed = Symbol("v", real=True) if fault("initial values") else -(force + beta * y) * T / (2 * mass)
    fall = speed * t + (force + beta * y) * t**2 / (2 * mass)
    yield Step(
        "A body that falls between two held points: L = m v^2 / 2 + theta q, c = y q. Both sides in full.",
        Derivative(Integral(expand(y * fall.subs(beta, 0)), (t, 0, T)), force),
        Derivative(Integral(expand(fall), (t, 0, T)), beta),
        name=r"\frac{d}{d\theta} \int c\,dt",
    )


@provable(
    "hamiltonian-echo",
    scope="leapfrog steps, the echo from the last two positions",
    faults={
        "no reversal": "the nudged pass runs forwards from the start",
        "friction": "a drag on every step",
    },
)
def hamiltonian_echo(fault: Planted) -> Iterator[Step]:
    theta, k, dt, y, beta = symbols("theta k tau y beta", real=True)
    drag = Symbol("gamma", positive=True) if fault("friction") else 0
    steps, start = 4, symbols("q_0 q_1", real=True)
    force = lambda x, strength: -(theta * x + k * x**2) + strength * (y + x)

    def run(path: tuple[Expr, ...], strength: Expr) -> tuple[Expr, ...]:
        for _ in range(steps - 1):
            before, here = path[-2:]
            path = (*path, 2 * here - before + dt**2 * force(here, strength) - drag * dt * (here - before))
        return path

    forwards = run(start, Integer(0))
    back = run(tuple(reversed(forwards[-2:])), Integer(0))
    yield Step("Reversed and without a nudge the echo ends where the motion began.", Matrix(back[-2:]),
               Matrix(start[::-1]), name=r"(q_1, q_0)")  # fmt: skip
    far = symbols("q_N q_{N-1}", real=True)
    along = lambda strength: run(start if fault("no reversal") else far, strength)
    reading = diff(sum(-dt * x**2 / 2 for x in along(beta)[1:steps]), beta).subs(beta, 0)
    if not fault("no reversal"):
        reading = reading.subs(dict(zip(far, reversed(forwards[-2:]), strict=True)), simultaneous=True)
    cost = dt * sum(y * x + x**2 / 2 for x in forwards[1:steps])
    where = {start[0]: 1, k: 2}  # two numbers given for speed: what is left is a polynomial in five unknowns
    yield Step(
        "The response of the reading along the echo is the gradient of the cost along the motion, in full.",
        reading.subs(where),
        diff(cost, theta).subs(where),
        name=r"\frac{dC}{d\theta}",
    )
    a0, a1, b0, b1, b2, stiff, push, slope = symbols("a_{i-1} a_i b_{i-1} b_i b_{i+1} V'' V'_theta c'", real=True)
    next_a = solve_leapfrog(a0, a1, -(stiff * a1 + push), dt, drag)
    ahead = b2 if not fault("no reversal") else solve_leapfrog(b0, b1, -stiff * b1 + 2 * slope, dt, drag)
    earlier = solve_leapfrog(ahead, b1, -stiff * b1 + slope, dt, drag)
    old, new = a1 * earlier - a0 * b1, next_a * b1 - a1 * ahead
    if fault("no reversal"):
        old = a1 * b0 - a0 * b1
    yield Step(
        "For any potential: with a = dq/dtheta and b = dq/dbeta of the echo, the current a_{i+1} b_i - a_i b_{i+1} "
        "changes by the two readings, and vanishes at both ends.",
        new - old,
        -(dt**2) * (push * b1 + slope * a1),
        name=r"W_i - W_{i-1}",
    )


def solve_leapfrog(before: Expr, here: Expr, force: Expr, dt: Symbol, drag: Expr) -> Expr:
    """The next of three neighbouring displacements."""
    return 2 * here - before + dt**2 * force - drag * dt * (here - before)
