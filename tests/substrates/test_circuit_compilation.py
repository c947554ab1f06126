"""One program for many circuits: what a small circuit is are run-time numbers; and how large the programs are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import KINDS, circuit, inputs
from equations import equations

from learning import CrossEntropy, EquilibriumPropagation, SquaredError
from substrates import Nudge, ResistorNetwork, Shockley, Status
from substrates.classical.resistor.coordinate_descent import CoordinateDescent
from substrates.classical.resistor.operating_point import OperatingPoint
from substrates.wiring.graphs import MOST_NODES_AT_RUN_TIME

N, M = 8, 11
ELEMENTS = {
    "plain": (0, None),
    "real diodes": (2, Shockley()),
    "bounds": (2, None),
    "ideal diodes": (2, None),
    "amplifier": (0, None),
}


def random_circuit(kind, seed):
    """A circuit of 8 nodes and 11 resistors, a tree among them, with 2 inputs, a rail, 2 outputs, and 2 diodes if any:
    each from an input or ground to one of the other nodes, or between two of these.
    """
    draw = np.random.default_rng(seed)
    order = draw.permutation(N)
    tree = [(int(order[k]), int(order[draw.integers(k)])) for k in range(1, N)]
    loops = [tuple(map(int, draw.choice(N, 2, replace=False))) for _ in range(M - len(tree))]
    first, second, rail, *free = map(int, draw.permutation(N))
    count, law = ELEMENTS[kind]
    ends = free if kind == "ideal diodes" else [first, -1]
    diodes = [(int(draw.choice(ends[:2])), free[2 + k]) for k in range(count)]
    return ResistorNetwork.from_edges(
        tree + loops,
        N,
        inputs=[first, second],
        outputs=free[:2],
        rails={rail: draw.normal()},
        conductance=draw.uniform(0.5, 2.0, M),
        diodes=diodes,
        diode=law,
        current_sources=[(first, free[1], draw.normal())],
        controlled_sources=[(free[4], -1, free[0], free[1], 0.3, 0.3)] if kind == "amplifier" else [],
    )


def traces(function, kind):
    """How often a function of a circuit is traced for ten of them, and what it gave."""
    count = []

    def counted(net):
        count.append(net)
        return function(net)

    compiled, nets = eqx.filter_jit(counted), [random_circuit(kind, seed) for seed in range(10)]
    return len(count), [compiled(net) for net in nets], len(count), nets


@pytest.mark.parametrize("kind", ELEMENTS)
def test_ten_circuits_compile_once(kind):
    """Relaxation and gradient; and each result is that of its own circuit, whose laws are told outside."""
    x, y = jnp.array([[1.0, -0.5]]), jnp.array([[0.3, 0.2]])
    _, found, count, nets = traces(lambda net: net.relax(x[0]), kind)
    assert count == 1
    for net, free in zip(nets, found, strict=True):
        assert free.converged
        v = np.append(net.voltages(free.state, x[0]), 0.0)
        drops = v[net.edges[:, 0]] - v[net.edges[:, 1]]
        np.testing.assert_allclose(net.voltage_drops(free.state, x[0]), drops, atol=1e-15)
        np.testing.assert_array_equal(v[list(net.inputs)], x[0])
        np.testing.assert_array_equal(net.read(free.state, x[0]), v[list(net.outputs)])
    rule = EquilibriumPropagation(0.1)
    _, gradients, count, _ = traces(lambda net: rule(net, x, y).gradient.conductance, kind)
    assert count == 1
    assert len({tuple(np.asarray(g).tolist()) for g in gradients}) == 10


@pytest.mark.parametrize("kind", ["plain", "bounds"])
def test_ten_circuits_compile_their_coordinate_descent_once(kind):
    x, nudge = jnp.array([1.0, -0.5]), Nudge(SquaredError(), jnp.zeros(2), 0.1)
    _, found, count, nets = traces(lambda net: net.relax(x, nudge, solver=CoordinateDescent()), kind)
    assert count == 1
    for net, state in zip(nets, found, strict=True):
        assert state.converged
        np.testing.assert_allclose(state.state, net.relax(x, nudge).state, rtol=1e-6, atol=1e-7)


def test_a_large_circuit_is_part_of_its_program_and_a_small_one_told_outside_alone():
    small, large = (ResistorNetwork.lattice((k,), inputs=[0], outputs=[1]) for k in (64, 65))
    assert MOST_NODES_AT_RUN_TIME == 64
    with pytest.raises(TypeError, match="run-time numbers"):
        eqx.filter_jit(lambda net: jnp.asarray(net.edges))(small)
    np.testing.assert_array_equal(eqx.filter_jit(lambda net: jnp.asarray(net.edges))(large), large.edges)
    for net in (small, large):
        found = net.relax(jnp.ones(1))
        assert found.converged
        np.testing.assert_allclose(found.state, 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_are_small(kind):
    """Circuits with ideal diodes between free nodes may have more equations."""
    net, x, target, most = circuit(kind, 0), inputs(0), jnp.zeros(2), 1000 if kind in ("diodes", "diode loop") else 600
    nudged = lambda net, x, target, beta: net.relax(x, Nudge(SquaredError(), target, beta))
    assert equations(lambda net, x: net.relax(x), net, x) <= equations(nudged, net, x, target, jnp.asarray(0.1)) <= most


@pytest.mark.parametrize("kind", ["linear", "amplifier", "bounds", "diodes", "real diodes"])
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_a_free_phase_is_a_nudge_of_strength_zero(kind, cost):
    net, x = circuit(kind, 3), inputs(3)
    solvers = [OperatingPoint(), *([CoordinateDescent()] if kind in ("linear", "bounds") else [])]
    nudge = Nudge(cost, jnp.array([0.2, 0.8]), jnp.asarray(0.0))
    relax = eqx.filter_jit(lambda net, x, nudge, start, solver: net.relax(x, nudge, start, solver=solver))
    for solver in solvers:
        for start in (None, relax(net, 0.9 * x, None, None, solver).state):
            free, still = (relax(net, x, acting, start, solver) for acting in (None, nudge))
            assert free.status == still.status
            for a, b in zip(jax.tree.leaves(free.state), jax.tree.leaves(still.state), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_what_no_conductance_holds_is_a_zero_mode_under_a_nudge_of_strength_zero_too():
    net = ResistorNetwork.from_edges([(0, 1), (1, 2), (2, 3)], inputs=[0, 3], outputs=[1], conductance=1.0)
    cut = eqx.tree_at(lambda net: net.conductance, net, jnp.array([0.0, 0.0, 1.0]))
    x, nudge = jnp.array([1.0, 2.0]), Nudge(SquaredError(), jnp.zeros(1), jnp.asarray(0.0))
    assert cut.relax(x).status == cut.relax(x, nudge).status == Status.zero_mode
    layers = ResistorNetwork.layered((2, 3, 2), key=jax.random.key(0))
    loose = eqx.tree_at(lambda net: net.conductance[-1], layers, layers.conductance[-1].at[:, 1].set(0))
    pulled = lambda beta: loose.relax(x, Nudge(SquaredError(), jnp.zeros(2), jnp.asarray(beta)))
    assert loose.relax(x).status == pulled(0.0).status == Status.zero_mode
    assert pulled(-0.01).status == Status.unstable
    held = jax.vmap(pulled)(jnp.linspace(0.05, 3.0, 100))  # rounding leaves some to cycle by a last bit
    assert jnp.all(held.converged)
    assert int(jnp.max(held.steps)) < 100


@pytest.mark.parametrize("beta", [0.01, 1.0])
def test_layers_that_start_at_nothing_settle_under_a_nudge_to_nothing(beta):
    """The first sweep goes from the outputs back, and leaves them where they are."""
    net, x = ResistorNetwork.layered((2, 3, 2), key=jax.random.key(0)), jnp.array([1.0, 2.0])
    nudge = Nudge(SquaredError(), jnp.zeros(2), jnp.asarray(beta))
    cold, warm = (net.relax(x, nudge, start) for start in (None, net.relax(x).state))
    assert cold.converged
    assert int(cold.steps) < 100
    np.testing.assert_allclose(cold.state[1], warm.state[1], rtol=1e-12)
