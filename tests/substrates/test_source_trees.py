"""Voltage sources in series: node voltages by sums along their tree are those of the maps written out."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from substrates import Nudge, ResistorNetwork
from substrates.classical.resistor import layout as layout_module
from substrates.classical.resistor.source_tree import SourceTree
from substrates.nudge import SquaredError

N = 90
"""More nodes than a circuit of run-time numbers has."""


def forest(rng, n, sources):
    """A random forest of sources over n nodes and ground, long ways among them."""
    order = rng.permutation(n)
    above = lambda k: order[max(k - int(rng.integers(1, 4)), 0)] if k else -1
    pairs = [(int(order[k]), int(above(k)) if rng.random() < 0.95 else -1) for k in range(sources)]
    return [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs]


@given(seed=st.integers(0, 2**31))
def test_node_voltages_are_sums_along_the_tree(seed):
    rng = np.random.default_rng(seed)
    n, count = 40, int(rng.integers(0, 40))
    pairs = np.array(forest(rng, n, count), int).reshape(-1, 2)
    tree = SourceTree.of(n, pairs)
    potentials, values = rng.normal(size=len(tree.potentials)), rng.normal(size=count)
    volts = np.append(tree.free @ potentials + tree.summed_from(tree.steps) @ values, 0.0)
    np.testing.assert_allclose(volts[pairs[:, 0]] - volts[pairs[:, 1]], values, atol=1e-12)
    np.testing.assert_array_equal(volts[tree.potentials], potentials)
    assert len(tree.potentials) == n - count
    assert tree.entries == tree.summed_from(tree.steps).nnz
    some = scipy.sparse.csr_array(np.eye(n)[rng.integers(n, size=3)])
    np.testing.assert_array_equal(
        (tree.summed_for(some) @ tree.steps).toarray(), some @ tree.summed_from(tree.steps).toarray()
    )


def network(seed, controlled=True):
    rng = np.random.default_rng(seed)
    graph = np.random.default_rng(5)
    sources = forest(graph, N - 20, N - 40)
    free = [node for node in range(N) if node not in {node for pair in sources for node in pair}]
    resistors = [(int(graph.integers(-1, node)), node) for node in range(N)]
    gains = [(free[0], -1, sources[-1][0], free[2], 0.3), (free[1], sources[3][0], free[3], -1, -0.2)]
    return ResistorNetwork.from_edges(
        resistors,
        N,
        inputs=[free[4]],
        outputs=[free[5], sources[10][0]],
        rails={free[6]: rng.normal()},
        conductance=10 ** rng.uniform(-1, 1, len(resistors)),
        voltage_sources=[(*pair, rng.normal()) for pair in sources],
        current_sources=[(sources[4][0], free[7], rng.normal())],
        controlled_sources=gains if controlled else [],
    )


@pytest.mark.slow
@pytest.mark.parametrize("controlled", [True, False])
def test_long_ways_give_what_written_out_maps_give(controlled, monkeypatch):
    written = network(1, controlled)
    monkeypatch.setattr(layout_module, "MOST_PATH_ENTRIES", 0)
    summed = network(1, controlled)
    x = jnp.array([0.7])
    nudge = Nudge(SquaredError(), jnp.array([0.1, -0.2]), jnp.asarray(0.3))
    for hold in (None, nudge):
        first, second = written.relax(x, hold), summed.relax(x, hold)
        assert first.converged
        assert second.converged
        np.testing.assert_allclose(second.state, first.state, rtol=1e-10, atol=1e-12)
    for look in ("voltages", "voltage_drops", "source_currents", "read", "currents"):
        shown = [np.asarray(getattr(net, look)(first.state, x)) for net in (summed, written)]
        np.testing.assert_allclose(*shown, rtol=1e-10, atol=1e-12)
    states = jnp.stack([first.state, 2 * first.state])
    xs = jnp.stack([x, -x])
    for batch in (lambda net: net.contrast(states, -states, xs), lambda net: jax.vmap(net.relax)(xs).state):
        leaves = [jax.tree.leaves(batch(net)) for net in (summed, written)]
        for a, b in zip(*leaves, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    slope = lambda net: jax.grad(lambda x: jnp.sum(net.relax(x).state ** 2))(x)
    np.testing.assert_allclose(slope(summed), slope(written), rtol=1e-9)


def test_twenty_thousand_sources_in_series_take_seconds():
    n, step = 20_000, 1e-3
    began = time.process_time()
    net = ResistorNetwork.from_edges(
        [*((k, -1) for k in range(n)), (n - 1, n), (n, -1)],
        n + 1,
        inputs=[0],
        outputs=[n],
        conductance=1e-3,
        voltage_sources=[(k + 1, k, step) for k in range(n - 1)],
    )
    x = jnp.array([1.0])
    found = eqx.filter_jit(lambda net, x: net.relax(x))(net, x)
    assert found.converged
    volts = np.append(1 + step * np.arange(n), (1 + step * (n - 1)) / 2)
    np.testing.assert_allclose(net.voltages(found.state, x), volts, rtol=1e-12)
    delivered = np.append(np.cumsum(volts[n - 1 :: -1])[::-1], 0.0)[:n] * 1e-3 + volts[n] * 1e-3
    np.testing.assert_allclose(net.source_currents(found.state, x), delivered, rtol=1e-11)
    assert time.process_time() - began < 60


def test_a_loop_in_a_long_chain_is_found_at_once():
    n = 20_000
    sources = [(k + 1, k, 1.0) for k in range(n - 1)]
    began = time.process_time()
    with pytest.raises(ValueError, match=r"the loop 0 - 1 - 2 .* - \.\.\. - .* contradict one another") as caught:
        ResistorNetwork.from_edges(
            [(0, -1)], n, inputs=[], outputs=[], conductance=1.0, voltage_sources=[*sources, (n - 1, 0, 0.0)]
        )
    assert len(str(caught.value)) < 500
    assert time.process_time() - began < 20


def test_singular_loops_of_a_large_circuit_are_refused_when_it_is_built():
    n = 200
    chain = [(k, k + 1) for k in range(n - 1)] + [(n - 1, -1)]
    options = {"inputs": [0], "outputs": [5], "conductance": 1.0}
    loop = [(10, -1, 20, -1, 2.0), (20, -1, 10, -1, 0.5)]
    with pytest.raises(ValueError, match=r"controlled_sources: wanted sources whose gains .* no single solution"):
        ResistorNetwork.from_edges(chain, n, controlled_sources=loop, **options)
    back = [(10, -1, 20, -1, 0.0, 2.0), (20, -1, 10, -1, 0.0, 0.5)]
    with pytest.raises(
        ValueError, match=r"controlled_sources: wanted sources whose reverse_gains .* no single solution"
    ):
        ResistorNetwork.from_edges(chain, n, controlled_sources=back, **options)
