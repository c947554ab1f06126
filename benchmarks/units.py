"""Never converged and wrong: random systems in other units and with parts far apart, cold and warm, in both precisions.

Every state that calls itself converged is held against the exact root near it: a Newton step on the forces in fifty
digits (mpmath), on the active set of ideal diodes and with every flip of spins in exact arithmetic. A state is wrong
where that step is more than 1e-6 (64 bits) or 1e-3 (32 bits) of the largest of it.

    python benchmarks/units.py [--each 12] [--kinds circuit elastic ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from learning import EquilibriumPropagation, SquaredError
from substrates import (
    ElasticNetwork,
    HopfieldNetwork,
    IsingModel,
    Nudge,
    OscillatorNetwork,
    PredictiveCodingNetwork,
    QuantumOscillatorNetwork,
    ResistorNetwork,
    Status,
    Substrate,
    TransverseFieldIsing,
)
from substrates.classical.resistor import ResistorCircuit, Shockley

mp.mp.dps = 50
SCALES = {64: (1e-24, 1e-12, 1e-9, 1e-5, 1.0, 1e6, 1e15), 32: (1e-12, 1e-9, 1e-6, 1e-4, 1.0, 1e6, 1e12)}
LARGEST_ERROR = {64: 1e-6, 32: 1e-3}
EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3), (2, 4), (0, 3)])
N = 5


class Wells(Substrate):
    """A plug-in of three methods: springs between numbers, wells that harden, fields."""

    spring: jax.Array
    well: jax.Array

    def energy(self, state, x):
        i, j = EDGES.T
        held = jnp.sum(self.well * (0.5 * (state - x) ** 2 + 0.25 * state**4))
        return 0.5 * jnp.sum(self.spring * (state[i] - state[j]) ** 2) + held

    def initial_state(self, x):
        return jnp.zeros(N, self.well.dtype)

    def read(self, state, x):
        return state[3:]


class Drift(Wells):
    """The same with a part that has no energy."""

    energy = Substrate.energy

    def force(self, state, x):
        i, j = EDGES.T
        through = self.spring * (state[i] - state[j])
        pulls = jnp.zeros_like(state).at[i].add(-through).at[j].add(1.3 * through)
        return pulls - self.well * (2 * (state - x) + state**3)


@dataclasses.dataclass
class Kind:
    """How to draw systems of a kind, and their forces in exact arithmetic.

    Attributes:
        template: a system in a dtype.
        parameters: the fields that carry the unit of energy, with the spread (in decades) of ordinary values.
        force: (parameters, x, state) -> forces, all of lists of mpmath numbers, without the nudge.
        inputs: how many numbers x has.
        outputs: the variables that are read.
        scales: whether the energy may be multiplied (activities of layers have a unit of their own).
    """

    template: Callable[[Any], Substrate]
    parameters: tuple[str, ...]
    force: Callable[[dict[str, list], list, list], list]
    inputs: int
    outputs: tuple[int, ...]
    scales: bool = True
    spread: float = 1.0


def _graph_forces(law: Callable) -> Callable:
    def force(p, x, s):
        total = [mp.mpf(0)] * N
        for k, (i, j) in enumerate(EDGES.tolist()):
            a, b = law(p, k, s[i], s[j])
            total[i] += a
            total[j] += b
        return total

    return force


def wells_force(p, x, s):
    springs = _graph_forces(lambda p, k, a, b: (-p["spring"][k] * (a - b), p["spring"][k] * (a - b)))(p, x, s)
    return [f - w * (v - y + v**3) for f, w, v, y in zip(springs, p["well"], s, x, strict=True)]


def drift_force(p, x, s):
    springs = _graph_forces(lambda p, k, a, b: (-p["spring"][k] * (a - b), mp.mpf(1.3) * p["spring"][k] * (a - b)))(
        p, x, s
    )
    return [f - w * (2 * (v - y) + v**3) for f, w, v, y in zip(springs, p["well"], s, x, strict=True)]


# circuits: inputs 5 and 6, ground -1
WIRES = [*EDGES.tolist(), (5, 0), (6, 2), (4, -1), (1, -1), (3, 6)]
DIODES = {"bounding": [(-1, 1), (3, -1)], "between": [(0, 2), (4, 1), (2, 3)], "real": [(0, 2), (4, 1)]}
LAW = (mp.mpf(1e-14), mp.mpf(0.02585))


def circuit(dtype, diodes: str | None = None) -> Substrate:
    pairs = DIODES.get(diodes or "", [])
    return ResistorNetwork.from_edges(
        WIRES,
        7,
        inputs=[5, 6],
        outputs=[2, 4],
        conductance=jnp.ones(len(WIRES), dtype),
        diodes=pairs,
        diode=Shockley(dtype(1e-14), dtype(0.02585)) if diodes == "real" else None,
    )


def circuit_force(p, x, s):
    v = [*s, *x, mp.mpf(0)]
    total = [mp.mpf(0)] * 8
    for g, (a, b) in zip(p["conductance"], WIRES, strict=True):
        total[a] -= g * (v[a] - v[b])
        total[b] += g * (v[a] - v[b])
    return total[:5]


def diode_force(p, x, s):
    total = circuit_force(p, x, s)
    for a, b in DIODES["real"]:
        current = LAW[0] * mp.expm1((s[a] - s[b]) / LAW[1])
        total[a] -= current
        total[b] += current
    return total


def elastic(dtype) -> Substrate:
    positions = np.array([(0, 0), (1, 0.2), (1.9, -0.1), (0.9, 1.1), (2.1, 1.0), (0, 1)], float)
    edges = [(0, 1), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (0, 3), (5, 3), (5, 1), (1, 4)]
    return ElasticNetwork.from_edges(
        edges,
        positions=positions,
        inputs=[(0, 0), (5, 1)],
        outputs=[2],
        clamped=[(0, 1), (5, 0)],
        stiffness=jnp.ones(len(edges), dtype),
    )


def elastic_force(p, x, s):
    net = elastic(np.float64)
    reference = [mp.mpf(float(v)) for v in net.reference.reshape(-1)]
    place = list(reference)
    place[0] += x[0]
    place[11] += x[1]
    for k, v in zip(net.topology.free.tolist(), s, strict=True):
        place[k] = v
    total = [mp.mpf(0)] * len(place)
    for k, (a, b) in enumerate(net.edges.tolist()):
        d = [place[2 * b + c] - place[2 * a + c] for c in (0, 1)]
        r = mp.sqrt(d[0] ** 2 + d[1] ** 2)
        for c in (0, 1):
            pull = p["stiffness"][k] * (r - p["rest_length"][k]) * d[c] / r
            total[2 * a + c] += pull
            total[2 * b + c] -= pull
    return [total[k] for k in net.topology.free.tolist()]


def oscillators(dtype) -> Substrate:
    return OscillatorNetwork.from_edges(
        EDGES, N, coupling=jnp.ones(len(EDGES), dtype), inputs=[0], outputs=[3, 4], field=jnp.ones(N, dtype)
    )


def oscillator_force(p, x, s):
    phi = [*x, *s]
    total = [-h * mp.sin(v) for h, v in zip(p["field"], phi, strict=True)]
    for w, (i, j) in zip(p["coupling.weight"], EDGES.tolist(), strict=True):
        total[i] -= w * mp.sin(phi[i] - phi[j])
        total[j] += w * mp.sin(phi[i] - phi[j])
    return total[1:]


def quantum_oscillators(dtype) -> Substrate:
    one = lambda n: jnp.ones(n, dtype)
    return QuantumOscillatorNetwork.from_edges(
        EDGES,
        N,
        inputs=[0],
        outputs=[3, 4],
        stiffness=one(len(EDGES)),
        onsite_stiffness=one(N),
        bias_force=one(N),
        mass=one(N),
        hbar=0.0,
    )


def quantum_oscillator_force(p, x, s):
    total = [f - k * v for f, k, v in zip(p["bias_force"], p["onsite_stiffness"], s, strict=True)]
    total[0] += x[0] * p["unit"]
    for k, (i, j) in zip(p["stiffness"], EDGES.tolist(), strict=True):
        total[i] -= k * (s[i] - s[j])
        total[j] += k * (s[i] - s[j])
    return total


def layered(dtype) -> Substrate:
    return ResistorNetwork.layered((2, 4, 2), key=jax.random.key(0), dtype=dtype)


def layered_force(p, x, s):
    hidden, out = s[:4], s[4:]
    sources = [*x, *(-v for v in x)]
    first = lambda i, j: p["conductance[0]"][4 * i + j]
    second = lambda j, k: p["conductance[1]"][2 * j + k]
    forces = [sum(first(i, j) * (sources[i] - hidden[j]) for i in range(4)) for j in range(4)]
    forces = [f + sum(second(j, k) * (out[k] - hidden[j]) for k in range(2)) for j, f in enumerate(forces)]
    return forces + [sum(second(j, k) * (hidden[j] - out[k]) for j in range(4)) for k in range(2)]


def hopfield(dtype) -> Substrate:
    return HopfieldNetwork.layered((2, 3, 2), key=jax.random.key(0), dtype=dtype)


def hopfield_force(p, x, s):
    hidden, out = s[:3], s[3:]
    first = lambda i, j: p["coupling[0].weight"][3 * i + j]
    second = lambda j, k: p["coupling[1].weight"][2 * j + k]
    felt = [p["bias[0]"][j] + sum(first(i, j) * x[i] for i in range(2)) for j in range(3)]
    felt = [f + sum(second(j, k) * out[k] for k in range(2)) - hidden[j] for j, f in enumerate(felt)]
    return felt + [p["bias[1]"][k] + sum(second(j, k) * hidden[j] for j in range(3)) - out[k] for k in range(2)]


def predictive_coding(dtype) -> Substrate:
    return PredictiveCodingNetwork.dense((2, 3, 2), key=jax.random.key(0), dtype=dtype)


def predictive_coding_force(p, x, s):
    hidden, out = s[:3], s[3:]
    a = [p["bias[0]"][j] + sum(p["coupling[0].weight"][3 * i + j] * x[i] for i in range(2)) for j in range(3)]
    b = [p["bias[1]"][k] + sum(p["coupling[1].weight"][2 * j + k] * hidden[j] for j in range(3)) for k in range(2)]
    back = [sum(p["coupling[1].weight"][2 * j + k] * (out[k] - b[k]) for k in range(2)) for j in range(3)]
    return [v - h + d for v, h, d in zip(a, hidden, back, strict=True)] + [v - o for v, o in zip(b, out, strict=True)]


def spins(dtype) -> Substrate:
    return IsingModel.from_edges(
        EDGES, N, coupling=jnp.ones(8, dtype), field=jnp.ones(N, dtype), inputs=[0], outputs=[3, 4]
    )


def quantum_spins(dtype) -> Substrate:
    one = lambda n: jnp.ones(n, dtype)
    return TransverseFieldIsing.from_edges(
        [(0, 1), (1, 2), (2, 0)], coupling=one(3), transverse_field=one(3), longitudinal_field=one(3), outputs=[1, 2]
    )


# rows a with a.s <= 0, and whether at most one set of active ones solves the equations
NODES = np.eye(5)
SIDES = {
    "bounding diodes": [-NODES[1], NODES[3]],
    "ideal diodes": [NODES[0] - NODES[2], NODES[4] - NODES[1], NODES[2] - NODES[3]],
    "deep resistive": [*(-np.eye(6)[:2]), *np.eye(6)[2:4]],
    "predictive coding": list(-NODES[:3]),
}
HIDDEN = 3
"""So many variables of a Hopfield network lie between 0 and 1."""

KINDS = {
    "plug-in": Kind(
        lambda dtype: Wells(jnp.ones(8, dtype), jnp.ones(N, dtype)), ("spring", "well"), wells_force, N, (3, 4)
    ),
    "force only": Kind(
        lambda dtype: Drift(jnp.ones(8, dtype), jnp.ones(N, dtype)), ("spring", "well"), drift_force, N, (3, 4)
    ),
    "circuit": Kind(circuit, ("conductance",), circuit_force, 2, (2, 4)),
    "bounding diodes": Kind(lambda dtype: circuit(dtype, "bounding"), ("conductance",), circuit_force, 2, (2, 4)),
    "ideal diodes": Kind(lambda dtype: circuit(dtype, "between"), ("conductance",), circuit_force, 2, (2, 4)),
    "real diodes": Kind(lambda dtype: circuit(dtype, "real"), ("conductance",), diode_force, 2, (2, 4), scales=False),
    "elastic": Kind(elastic, ("stiffness",), elastic_force, 2, (2, 3), spread=0.3),
    "oscillators": Kind(oscillators, ("coupling.weight", "field"), oscillator_force, 1, (2, 3)),
    "quantum oscillators": Kind(
        quantum_oscillators, ("stiffness", "onsite_stiffness", "bias_force"), quantum_oscillator_force, 1, (3, 4)
    ),
    "deep resistive": Kind(layered, ("conductance[0]", "conductance[1]"), layered_force, 2, (4, 5)),
    "hopfield": Kind(
        hopfield, ("coupling[0].weight", "coupling[1].weight", "bias[0]", "bias[1]"), hopfield_force, 2, (3, 4), False
    ),
    "predictive coding": Kind(
        predictive_coding,
        ("coupling[0].weight", "coupling[1].weight", "bias[0]", "bias[1]"),
        predictive_coding_force,
        2,
        (3, 4),
        False,
    ),
    "ising": Kind(spins, ("coupling.weight", "field"), lambda p, x, s: [], 1, (3, 4)),
    "quantum spins": Kind(
        quantum_spins, ("coupling", "transverse_field", "longitudinal_field"), lambda p, x, s: [], 0, ()
    ),
}


def at(net: Any, path: str) -> Any:
    """The field of a path like "coupling[0].weight"."""
    for part in path.replace("]", "").replace("[", ".").split("."):
        net = net[int(part)] if part.isdigit() else getattr(net, part)
    return net


def drawn(kind: Kind, rng: np.random.Generator, count: int, dtype: Any, decades: float, scales: np.ndarray) -> Any:
    """Systems with a leading axis; parameters log-uniform over some decades, times a scale each."""
    net = kind.template(dtype)
    signed = not isinstance(net, ResistorCircuit | ElasticNetwork | Wells | Drift | QuantumOscillatorNetwork)
    stacked = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count, *jnp.shape(leaf))), eqx.filter(net, eqx.is_array)
    )
    stacked = eqx.combine(stacked, net)
    for path in kind.parameters:
        shape = jnp.shape(at(net, path))
        values = 10 ** rng.uniform(-decades / 2, decades / 2, (count, *shape))
        if signed:
            values = values * rng.choice([-1, 1], values.shape)
        values = values * scales.reshape(-1, *(1 for _ in shape))
        stacked = eqx.tree_at(lambda n, q=path: at(n, q), stacked, jnp.asarray(values, dtype))
    return stacked


@eqx.filter_jit
def settled(nets, xs, starts, targets, betas) -> Any:
    """Equilibria of a batch of systems, free without targets."""

    def one(net, x, start, target, beta):
        nudge = None if target is None else Nudge(SquaredError(), target, beta)
        found = net.relax(x, nudge, start)
        return found.state, found.status == Status.converged

    return eqx.filter_vmap(one)(nets, xs, starts, targets, betas)


def flat(state: Any, k: int) -> list:
    """The numbers of one example's state, exact."""
    leaves = [np.asarray(leaf, float)[k].ravel() for leaf in jax.tree.leaves(state)]
    return [mp.mpf(float(v)) for v in np.concatenate(leaves)]


def newton_step(force: Callable, s: list, free: list[int], sides: list) -> tuple[list, list]:
    """(step, multipliers) of the free variables, with the sides held at zero."""
    n, m, h = len(free), len(sides), mp.mpf(10) ** -25
    matrix, right = mp.matrix(n + m, n + m), mp.matrix(n + m, 1)
    now = force(s)
    for c, j in enumerate(free):
        moved = list(s)
        moved[j] += h
        ahead = force(moved)
        for r, i in enumerate(free):
            matrix[r, c] = -(ahead[i] - now[i]) / h
    for k, a in enumerate(sides):
        for c, j in enumerate(free):
            matrix[n + k, c] = matrix[c, n + k] = mp.mpf(float(a[j]))
        right[n + k] = -sum(mp.mpf(float(w)) * v for w, v in zip(a, s, strict=True))
    for r, i in enumerate(free):
        right[r] = now[i]
    # balanced: the parts are far apart
    rows = [max(abs(matrix[r, c]) for c in range(n + m)) or mp.mpf(1) for r in range(n + m)]
    for r in range(n + m):
        for c in range(n + m):
            matrix[r, c] /= rows[r]
        right[r] /= rows[r]
    found = mp.lu_solve(matrix, right)
    return [found[c] for c in range(n)], [found[n + k] for k in range(m)]


def exact_error(name: str, force: Callable, s: list) -> float:
    """How far a state is from an exact equilibrium, as a part of its largest number."""
    size = max(max(abs(v) for v in s), mp.mpf(10) ** -300)
    every = list(range(len(s)))
    if name == "hopfield":
        now = force(s)
        held = [k for k in range(HIDDEN) if (s[k] <= 0 and now[k] <= 0) or (s[k] >= 1 and now[k] >= 0)]
        step, _ = newton_step(force, s, [k for k in every if k not in held], [])
        return float(max((abs(v) for v in step), default=0) / size)
    if name not in SIDES:
        return float(max(abs(v) for v in newton_step(force, s, every, [])[0]) / size)
    for count in range(len(SIDES[name]) + 1):
        for active in itertools.combinations(SIDES[name], count):
            try:
                step, multipliers = newton_step(force, s, every, list(active))
            except ZeroDivisionError:
                continue
            end = [v + d for v, d in zip(s, step, strict=True)]
            small = mp.mpf(10) ** -20 * size
            inside = all(sum(mp.mpf(float(w)) * v for w, v in zip(a, end, strict=True)) <= small for a in SIDES[name])
            if inside and all(m >= -(mp.mpf(10) ** -40) for m in multipliers):
                return float(max(abs(d) for d in step) / size)
    return float("nan")


def spin_error(p: dict, x: list, s: list, pull: list) -> float:
    """What the most rewarding flip releases, as a part of what meets at its spin."""
    every = [*x, *s]
    worst = mp.mpf(0)
    for k in range(1, N):
        field, size = p["field"][k] + pull[k], abs(p["field"][k]) + abs(pull[k])
        for w, (i, j) in zip(p["coupling.weight"], EDGES.tolist(), strict=True):
            if k in (i, j):
                field += w * every[j if k == i else i]
                size += abs(w * every[j if k == i else i])
        worst = max(worst, -every[k] * field / size)
    return float(worst)


def ray_error(p: dict, s: list) -> float:
    """How far a vector of three spins is from the exact ground state."""
    H = mp.matrix(8, 8)
    sign = lambda state, spin: 1 - 2 * ((state >> (2 - spin)) & 1)
    for a in range(8):
        for w, (i, j) in zip(p["coupling"], [(0, 1), (1, 2), (2, 0)], strict=True):
            H[a, a] -= w * sign(a, i) * sign(a, j)
        for i in range(3):
            H[a, a] -= p["longitudinal_field"][i] * sign(a, i)
            H[a, a ^ (4 >> i)] -= p["transverse_field"][i]
    values, vectors = mp.eigsy(H)
    ground = vectors[:, min(range(8), key=lambda k: values[k])]
    overlap = sum(g * v for g, v in zip(ground, s, strict=True))
    return float(max(abs(v - overlap * g) for g, v in zip(ground, s, strict=True)))


def judged(
    name: str, kind: Kind, nets: Any, xs: Any, state: Any, ok: Any, targets: Any, betas: Any, bits: int
) -> list[int]:
    """How many states are right, refused and wrong."""
    counts = [0, 0, 0]
    for k in range(len(ok)):
        if not bool(ok[k]):
            counts[1] += 1
            continue
        exact = lambda leaf, k=k: [mp.mpf(float(v)) for v in np.asarray(leaf, float)[k].ravel()]
        p = {path: exact(at(nets, path)) for path in kind.parameters}
        if name == "elastic":
            p["rest_length"] = exact(nets.rest_length)
        p["unit"] = mp.mpf(1)
        x, s = exact(xs), flat(state, k)
        beta = mp.mpf(0) if betas is None else mp.mpf(float(betas[k]))
        y = [mp.mpf(0)] * 2 if targets is None else exact(targets)
        pulls = lambda v, b=beta, y=y: {o: b * (t - v[o]) for o, t in zip(kind.outputs, y, strict=True)} if b else {}
        if name == "elastic":  # what is read are displacements
            start = [
                mp.mpf(float(v)) for v in np.asarray(nets.topology.reference.reshape(-1)[nets.topology.free], float)
            ]
            pulls = lambda v, b=beta, y=y, r=start: {
                o: b * (t - v[o] + r[o]) for o, t in zip(kind.outputs, y, strict=True)
            }
        if name == "ising":
            error = spin_error(p, x, s, [mp.mpf(0)] * 3 + [beta * t for t in y])
        elif name == "quantum spins":
            error = ray_error(p, s)
        else:
            force = lambda v, p=p, x=x, pulls=pulls: [f + pulls(v).get(i, 0) for i, f in enumerate(kind.force(p, x, v))]
            error = exact_error(name, force, s[: len(kind.force(p, x, s))] if name != "ideal diodes" else s[:5])
        wrong = not error <= LARGEST_ERROR[bits]
        counts[2 if wrong else 0] += 1
    return counts


def report(name: str, kind: Kind, bits: int, parts: bool, each: int, seed: int) -> None:
    """One row of the table: right / refused / wrong of the four phases."""
    dtype = {64: np.float64, 32: np.float32}[bits]
    rng = np.random.default_rng(seed)
    scales = np.ones(7 * each) if parts else np.repeat(SCALES[bits], each)
    count = len(scales)
    nets = drawn(kind, rng, count, dtype, 12.0 if parts else kind.spread, scales)
    draw = lambda n: jnp.asarray(rng.uniform(-1, 1, (count, n)), dtype)
    xs, others, targets = draw(kind.inputs), draw(kind.inputs), draw(2)
    if name == "elastic":
        xs, others, targets = 0.2 * xs, 0.2 * others, 0.2 * targets
    betas = jnp.asarray(10 ** (rng.uniform(-6, 6, count) if parts else rng.uniform(-1, 0, count)) * scales, dtype)
    if not kind.scales:
        betas = jnp.asarray(10 ** rng.uniform(-3, -0.5, count), dtype)
    cold, cold_ok = settled(nets, xs, None, None, None)
    elsewhere, _ = settled(nets, others, None, None, None)
    rows = [("cold", cold, cold_ok, None, None)]
    rows.append(("warm", *settled(nets, xs, elsewhere, None, None), None, None))
    if kind.outputs:
        rows.append(("nudged", *settled(nets, xs, cold, targets, betas), targets, betas))
        rows.append(("nudged warm", *settled(nets, xs, elsewhere, targets, betas), targets, betas))
    shown = []
    for phase, state, ok, y, beta in rows:
        right, refused, wrong = judged(name, kind, nets, xs, state, np.asarray(ok), y, beta, bits)
        shown.append(f"{phase} {right}/{refused}/{wrong}")
        TOTALS[0] += right
        TOTALS[1] += refused
        TOTALS[2] += wrong
    print(f"{name:20} {bits} bits  {'parts' if parts else 'scaled':7} {'   '.join(shown)}", flush=True)


def gradients(name: str, kind: Kind, bits: int, each: int, seed: int) -> None:
    """The gradient of a system scaled by s is that at s = 1 times s, with a nudge times s."""
    dtype = {64: np.float64, 32: np.float32}[bits]
    worst, refused = 0.0, 0
    for draw in range(each):
        found = []
        for s in SCALES[bits]:
            rng = np.random.default_rng(seed + draw)
            net = jax.tree.map(lambda leaf: leaf[0], drawn(kind, rng, 1, dtype, kind.spread, np.asarray([s])))
            x, y = (jnp.asarray(0.2 * rng.uniform(-1, 1, (1, n)), dtype) for n in (kind.inputs, 2))
            if name == "quantum oscillators":  # whose inputs are forces
                x = x * jnp.asarray(s, dtype)
            rule = EquilibriumPropagation(jnp.asarray(0.1 * s, dtype), strict=False)
            estimate = eqx.filter_jit(rule)(net, x, y)
            fine = all(bool(jnp.all(e.converged)) for e in estimate.equilibria)
            found.append((np.asarray(at(estimate.gradient, kind.parameters[0]), float).ravel() * s, fine))
        wanted = found[SCALES[bits].index(1.0)][0]
        for gradient, fine in found:
            refused += not fine
            if fine:
                worst = max(worst, float(np.max(np.abs(gradient - wanted)) / np.max(np.abs(wanted))))
    print(f"{name:20} {bits} bits  gradients off by {worst:.1e} at most, {refused} refused", flush=True)


TOTALS = [0, 0, 0]


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=4, help="systems per scale, and a seventh of those with parts")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--bits", nargs="*", type=int, default=[64, 32])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-gradients", action="store_true")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print("right / refused / wrong")
    for name in given.kinds:
        kind = KINDS[name]
        for bits in given.bits:
            for parts in (False, True) if kind.scales else (True,):
                report(name, kind, bits, parts, given.each, given.seed)
            if kind.scales and kind.outputs and name != "ising" and not given.no_gradients:
                gradients(name, kind, bits, 2, given.seed)
    print(f"{sum(TOTALS)} relaxations: {TOTALS[0]} right, {TOTALS[1]} refused, {TOTALS[2]} converged and wrong")


if __name__ == "__main__":
    main()
