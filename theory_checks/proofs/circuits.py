"""Proofs about networks of resistors and diodes."""

from __future__ import annotations

from collections.abc import Iterator

from sympy import Abs, Derivative, Function, Integer, Integral, Matrix, Max, Symbol, diff, exp, log, solve, symbols

from theory_checks.proofs.algebra import Branch, coefficient
from theory_checks.proofs.proof import Planted, Step, provable


@provable(
    "co-content",
    faults={
        "branch turned": "the current of one branch counted the same at both of its ends",
        "power": "the power v i taken for the content",
    },
)
def co_content(fault: Planted) -> Iterator[Step]:
    nodes = symbols("v_1:4", real=True)
    pairs = ((0, 1), (1, 2), (0, 2))
    drop, source = Symbol("z", real=True), Symbol("I", real=True)
    flows = [Function(f"g_{i + 1}{j + 1}", real=True) for i, j in pairs]
    drops = [nodes[i] - nodes[j] for i, j in pairs]
    if fault("branch turned"):
        drops[0] = nodes[0] + nodes[1]
    contents = [Integral(g(drop), (drop, 0, across)) for g, across in zip(flows, drops, strict=True)]
    total = sum(contents) - source * nodes[0]
    first, second, third = (g(nodes[i] - nodes[j]) for g, (i, j) in zip(flows, pairs, strict=True))
    yield Step(
        "Stationarity in a potential is Kirchhoff's law at that node: with a source,",
        diff(total, nodes[0]),
        first + third - source,
        name=r"\frac{\partial P}{\partial v_1}",
    )
    yield Step("and without.", diff(total, nodes[1]), second - first, name=r"\frac{\partial P}{\partial v_2}")
    conductance, leak, thermal, v, i = symbols("g I_s V_T v i", positive=True)
    share = 1 if fault("power") else Integer(1) / 2
    yield Step(
        "Of a resistor the content is half the power.",
        Integral(conductance * drop, (drop, 0, v)),
        share * conductance * v**2,
        name="p(v)",
    )
    shockley = leak * (exp(drop / thermal) - 1)
    diode = leak * (thermal * exp(v / thermal) - v - thermal)
    if fault("power"):
        diode = v * shockley.subs(drop, v)
    yield Step("Of a diode,", Integral(shockley, (drop, 0, v)), diode, name="p(v)")
    dual = thermal * ((i + leak) * log(1 + i / leak) - i)
    yield Step("and its co-content,", Derivative(dual, i), thermal * log(1 + i / leak), name=r"\frac{dq}{di}")
    yield Step(
        "which add up to the power.", diode + dual.subs(i, shockley.subs(drop, v)), v * shockley.subs(drop, v),
        name="p + q",
    )  # fmt: skip
    current = Function("g", real=True)
    content = v * current(v) if fault("power") else Integral(current(drop), (drop, 0, v))
    yield Step(
        "In general: as dp/dv = i and dq/di = v, the sum grows as v i does.",
        diff(content, v) + v * diff(current(v), v),
        diff(v * current(v), v),
        name=r"\frac{d}{dv} (p + q)",
    )


@provable(
    "diode-complementarity",
    scope="linear resistors, ideal diodes and sources",
    faults={
        "against the arrow": "the current of the diode counted in the other direction",
        "leaking": "a voltage across the diode that conducts",
    },
)
def diode_complementarity(fault: Planted) -> Iterator[Step]:
    g, h, gap = symbols("g h delta", positive=True)
    a, b, v, w, current = symbols("a b v w lambda", real=True)
    power = (
        g * (v - a) ** 2 / 2 + h * (w - b) ** 2 / 2
    )  # two nodes behind resistors, a diode from the first to the second
    sign = -1 if fault("against the arrow") else 1
    off = solve([diff(power, v), diff(power, w)], [v, w])
    yield Step("Off: each node at the potential behind its resistor.", Matrix([off[v], off[w]]), Matrix([a, b]),
               name="(v, w)")  # fmt: skip
    across = gap if fault("leaking") else 0
    on = solve(
        [g * (v - a) + sign * current, h * (w - b) - sign * current, v - w - across], [v, w, current], dict=True
    )[0]
    yield Step(
        "On: the two laws of Kirchhoff, with no drop, give one potential,",
        on[v],
        (g * a + h * b) / (g + h),
        name="v",
    )
    constrained = solve(diff(power.subs(w, v), v), v)[0]
    yield Step("the minimum of the power of the two together,", on[v], constrained, name="v")
    yield Step(
        "and the multiplier is the current, from the first node to the second.",
        on[current],
        -diff(power, v).subs(v, constrained),
        name=r"\lambda",
    )
    higher = Symbol("delta", positive=True)
    yield Step(
        "It flows along the arrow if the first node would lie higher without it.",
        Integer(0),
        on[current].subs(a, b + higher),
        margin=g * h * higher / (g + h),
    )
    yield Step("Current times drop is zero.", on[current] * (on[v] - on[w]), Integer(0), name=r"\lambda (v - w)")
    neighbours, total = symbols("x_1:4", real=True), symbols("g_1:4", positive=True)
    own = sum(gk * (v - x) ** 2 / 2 for gk, x in zip(total, neighbours, strict=True)) - current * v
    at = (sum(gk * x for gk, x in zip(total, neighbours, strict=True)) + sign * current) / sum(total)
    yield Step(
        "One node: away from the weighted mean p of its neighbours the power grows as a square,",
        own - own.subs(v, at),
        sum(total) * (v - at) ** 2 / 2,
        name=r"P(v) - P(p)",
    )
    short, beyond = symbols("r s", nonnegative=True)
    parabola = lambda x: sum(total) * x**2 / 2
    yield Step(
        "so a bound at distance r from p is better than anything s beyond it: clipping is the exact step.",
        parabola(short),
        parabola(short + beyond),
        margin=sum(total) * beyond * (beyond + 2 * short) / 2,
    )


@provable(
    "universal-approximation",
    faults={
        "no leak": "nodes whose total conductances are what their weights make them",
        "no gain": "layers joined without amplifiers",
    },
)
def universal_approximation(fault: Planted) -> Iterator[Step]:
    plus, minus, leak, G, gamma = symbols("w^+ w^- l G gamma", positive=True)
    a, v = symbols("a v", real=True)
    rest = leak if fault("no leak") else G - plus - minus
    law = lambda sign: plus * (v - sign * a) + minus * (v + sign * a) + rest * v
    up, down = (solve(law(sign), v)[0] for sign in (1, -1))
    yield Step("Joined to a by w+ and to -a by w-, with the leak.", up, (plus - minus) * a / G, name=r"v_{exc}")
    yield Step("Its twin carries the opposite.", down, -(plus - minus) * a / G, name=r"v_{inh}")
    gain = 1 if fault("no gain") else G
    yield Step("An amplifier undoes the division.", gain * up, (plus - minus) * a, name=r"A v")
    rectified = lambda x: (x + Abs(x)) / 2
    yield Step("A diode rectifies before or after: the same.", gain * rectified(up), rectified((plus - minus) * a))
    yield Step("It holds the node at or above ground.", Max(0, a).rewrite(Abs), rectified(a))
    first, second, x, s, t = symbols("w_1 w_2 x v_1 v_2", positive=True)
    later = gamma * (gain * s - t)  # what flows through the second layer, per unit of its weight
    leak_1 = leak if fault("no leak") else G - first
    leak_2 = leak if fault("no leak") else G - second
    branch = [
        first * (s - x) + leak_1 * s + gain * second * later,
        gamma * leak_2 * t - second * later,
    ]
    solved = solve(branch, [s, t], dict=True)[0]
    hidden, shown = solved[s].subs(gamma, 0), (gain * solved[t]).cancel().subs(gamma, 0)
    yield Step("Two layers: as gamma vanishes the first does not feel the second,", gain * hidden, first * x)
    yield Step("and the second shows what the network computes.", shown, second * first * x)
    load = Branch([branch[0].subs(t, second * gain * s / G)], [s]).velocity(gamma)[0].subs(gamma, 0)
    yield Step(
        "What the second layer draws is of first order in gamma.",
        coefficient(solved[s].cancel(), gamma, 1),
        load.subs(s, hidden),
        name=r"\frac{dv_1}{d\gamma}",
    )
