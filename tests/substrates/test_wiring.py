"""Couplings against matrices, SciPy's correlation, and their own derivatives."""

import itertools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate2d

from substrates.wiring import (
    Bonds,
    CompiledRoles,
    Convolution,
    Dense,
    Graph,
    Roles,
    chain_of_groups,
    colour_classes,
    connected_parts,
    neighbour_table,
)

seeds = st.integers(0, 2**31 - 1)
normal = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape)

forward = eqx.filter_jit(lambda coupling, u: coupling.forward(u))
backward = eqx.filter_jit(lambda coupling, v, u: coupling.backward(v, u))
felt = eqx.filter_jit(lambda coupling, v, u: jax.grad(lambda u: jnp.sum(v * coupling.forward(u)))(u))


def convolution(seed, pooling, padding=1):
    return Convolution(jnp.asarray(normal(seed, 3, 3, 2, 4)), pooling, padding)


def correlated(u, weight, padding):
    padded = np.pad(u, ((padding, padding), (padding, padding), (0, 0)))
    maps = [
        sum(correlate2d(padded[..., i], weight[..., i, o], mode="valid") for i in range(weight.shape[2]))
        for o in range(weight.shape[3])
    ]
    return np.stack(maps, axis=-1)


def pooled(z, pooling):
    """By a loop over the windows."""
    if pooling is None:
        return z
    out = np.zeros((z.shape[0] // 2, z.shape[1] // 2, z.shape[2]))
    for i, j, c in np.ndindex(*out.shape):
        window = z[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        weights = np.exp(window)
        out[i, j, c] = {
            "max": window.max(),
            "average": window.mean(),
            "soft": (weights * window).sum() / weights.sum(),
        }[pooling]
    return out


@pytest.mark.parametrize("pooling", [None, "max", "average", "soft"])
@given(seed=seeds)
def test_a_convolution_is_scipys_correlation_then_pooling(pooling, seed):
    coupling, u = convolution(seed, pooling), normal(seed + 1, 6, 4, 2)
    wanted = pooled(correlated(u, np.asarray(coupling.weight), 1), pooling)
    np.testing.assert_allclose(forward(coupling, jnp.asarray(u)), wanted, atol=1e-12)
    assert coupling.after((6, 4, 2)) == wanted.shape


@pytest.mark.parametrize(
    ("kernel", "padding", "places"),
    [((5, 5), 0, (8, 10)), ((2, 2), 1, (5, 7)), ((1, 1), 0, (4, 6)), ((4, 3), 1, (7, 6)), ((3, 3), 2, (4, 2))],
)
def test_average_pooling_of_a_kernel_with_any_sides(kernel, padding, places):
    """It is computed as one correlation in steps of two, which is laid out by whether a side is even."""
    weight, u = normal(0, *kernel, 2, 3), normal(1, *places, 2)
    coupling = Convolution(jnp.asarray(weight), "average", padding)
    np.testing.assert_allclose(
        coupling.forward(jnp.asarray(u)), pooled(correlated(u, weight, padding), "average"), atol=1e-13
    )
    v = normal(2, *coupling.after(u.shape))
    back = coupling.convolve_back(jnp.asarray(np.repeat(np.repeat(v, 2, 0), 2, 1) / 4), u.shape)
    np.testing.assert_allclose(coupling.backward(jnp.asarray(v), jnp.asarray(u)), back, atol=1e-13)


@pytest.mark.parametrize("pooling", [None, "max", "average", "soft"])
@given(seed=seeds)
def test_backward_is_the_derivative_of_the_interaction(pooling, seed):
    coupling, u = convolution(seed, pooling), jnp.asarray(normal(seed + 1, 6, 4, 2))
    v = jnp.asarray(normal(seed + 2, *coupling.after((6, 4, 2))))
    np.testing.assert_allclose(backward(coupling, v, u), felt(coupling, v, u), atol=1e-12)
    step = 1e-6 * jnp.asarray(normal(seed + 3, 6, 4, 2))
    change = jnp.sum(v * (forward(coupling, u + step) - forward(coupling, u - step))) / 2
    np.testing.assert_allclose(jnp.sum(backward(coupling, v, u) * step), change, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), 1), ((2, 3), 0), ((1, 2), 1), ((3, 3), 3)])
def test_derivatives_of_a_convolution_are_sums_over_its_windows(kernel, padding):
    """Also the second one, along a direction of the maps, that a contrast takes; and the transpose."""
    weight, u, du = normal(0, *kernel, 2, 4), normal(1, 5, 4, 2), normal(2, 5, 4, 2)
    v = normal(3, *Convolution(jnp.asarray(weight), padding=padding).after(u.shape))

    def interaction(weight, u):
        return jnp.sum(jnp.asarray(v) * Convolution(weight, padding=padding).convolve(u))

    def summed(u):
        padded = np.pad(u, ((padding, padding), (padding, padding), (0, 0)))
        return np.einsum("rcikl,rco->klio", np.lib.stride_tricks.sliding_window_view(padded, kernel, (0, 1)), v)

    arguments = jnp.asarray(weight), jnp.asarray(u)
    slope = lambda u: jax.grad(interaction)(arguments[0], u)
    found, along = jax.jvp(slope, arguments[1:], (jnp.asarray(du),))
    np.testing.assert_allclose(found, summed(u), atol=1e-12)
    np.testing.assert_allclose(along, summed(du), atol=1e-12)
    both = jax.jvp(interaction, arguments, (jnp.asarray(weight), jnp.asarray(du)))[1]
    np.testing.assert_allclose(both, np.sum(weight * (summed(u) + summed(du))), atol=1e-11)
    back = Convolution(arguments[0], padding=padding).convolve_back(jnp.asarray(v), u.shape)
    np.testing.assert_allclose(np.sum(back * du), np.sum(weight * summed(du)), atol=1e-11)


@pytest.mark.parametrize(("pooling", "least"), [(None, 2), ("average", 1)])
def test_no_convolution_in_a_loop_has_a_layout_that_is_slow_on_cpus(pooling, least):
    """With average pooling only the way there is a convolution, and the way back a product of matrices."""
    coupling, maps = convolution(0, pooling), jnp.ones((5, 6, 4, 2))
    places = coupling.after((6, 4, 2))

    def step(_, pair):
        weight, maps = pair
        changed = Convolution(weight, pooling)
        energy = lambda c, u: jnp.sum(jax.vmap(c.forward)(u) ** 2)
        back = jax.vmap(lambda u: changed.backward(jnp.ones(places), u))(maps)
        slopes, moved = jax.grad(energy, argnums=(0, 1))(changed, maps)
        return weight + slopes.weight, maps + back + moved

    program = jax.jit(lambda *pair: jax.lax.fori_loop(0, 3, step, pair)).lower(coupling.weight, maps).compile()
    convolutions = re.findall(r" convolution\(.*dim_labels=(\S+?)[,\s]", str(program.as_text()))
    assert len(convolutions) >= least
    assert set(convolutions) == {"b01f_01io->b01f"}


@given(seed=seeds)
def test_dense_couplings_feel_both_ways(seed):
    coupling = Dense(jnp.asarray(normal(seed, 5, 3)))
    u, v = jnp.asarray(normal(seed + 1, 5)), jnp.asarray(normal(seed + 2, 3))
    np.testing.assert_allclose(coupling.forward(u), np.asarray(coupling.weight).T @ u, atol=1e-12)
    np.testing.assert_allclose(coupling.backward(v, u), felt(coupling, v, u), atol=1e-12)


def test_soft_pooling_continues_analytically():
    coupling = convolution(0, "soft", 0)
    u, direction = jnp.asarray(normal(1, 6, 4, 2)), jnp.asarray(normal(2, 6, 4, 2))
    complex_coupling = Convolution(coupling.weight.astype(complex), "soft", 0)
    slope = forward(complex_coupling, jax.lax.complex(u, 1e-6 * direction)).imag / 1e-6
    wanted = jax.jvp(coupling.forward, (u,), (direction,))[1]
    np.testing.assert_allclose(slope, wanted, atol=1e-8)


GRAPHS = {
    "ring": Graph.from_edges(
        [(0, 1), (1, 2), (3, 2), (3, 4), (4, 5), (5, 0)] + [(5 + k, 6 + k) for k in range(74)], 80
    ),
    "triangle and a loner": Graph.from_edges([(0, 1), (2, 1), (0, 2)], 4),
    "complete": Graph.from_edges(list(itertools.combinations(range(7), 2)), 7),
    "no edges": Graph.from_edges([], 3),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_bonds_are_a_symmetric_matrix(graph):
    bonds = Bonds(jnp.asarray(normal(0, len(graph.edges))), graph)
    matrix = np.zeros((graph.n, graph.n))
    for (i, j), weight in zip(graph.edges, bonds.weight, strict=True):
        matrix[i, j] = matrix[j, i] = weight
    s, t = normal(1, 2, graph.n), normal(2, 2, graph.n)
    np.testing.assert_allclose(bonds.product(jnp.asarray(s)), s @ matrix, atol=1e-12)
    np.testing.assert_allclose(bonds.matrix(), matrix)
    pairs = sum(
        w * (s[:, i] * t[:, j] + t[:, i] * s[:, j]) / 2 for (i, j), w in zip(graph.edges, bonds.weight, strict=True)
    )
    np.testing.assert_allclose(bonds.interaction(jnp.asarray(s), jnp.asarray(t)), pairs, atol=1e-12)


def test_both_ways_of_multiplying_are_met():
    sparse, dense = (Bonds(jnp.ones(len(GRAPHS[k].edges)), GRAPHS[k]).dense for k in ("ring", "complete"))
    assert (sparse, dense) == (False, True)


@given(seed=seeds, n=st.integers(1, 12), p=st.floats(0, 1))
def test_colours_are_classes_of_nodes_not_joined(seed, n, p):
    drawn = nx.gnp_random_graph(n, p, seed=seed)
    graph = Graph.from_edges(np.asarray(drawn.edges, int).reshape(-1, 2), n)
    assert sorted(np.concatenate(graph.colours)) == list(range(n))
    colour = {node: c for c, group in enumerate(graph.colours) for node in group}
    assert all(colour[i] != colour[j] for i, j in graph.edges.tolist())
    if drawn.number_of_edges() and nx.is_bipartite(drawn):
        assert len(graph.colours) == 2
    assert len(set(graph.parts)) == nx.number_connected_components(drawn)


def test_parts_are_numbered_by_their_first_node_whatever_joins_them():
    edges = np.array([(4, 1), (1, 4), (2, 2), (3, 5), (5, 1)])
    np.testing.assert_array_equal(connected_parts(7, edges), [0, 1, 2, 1, 1, 1, 3])
    np.testing.assert_array_equal(connected_parts(3, np.zeros((0, 2), int)), [0, 1, 2])


@given(seed=seeds, n=st.integers(1, 9), m=st.integers(0, 12))
def test_parts_colours_and_neighbours_by_a_walk_along_the_edges(seed, n, m):
    """Also with loops and parallel edges, but for colours, which know no loops."""
    edges = np.random.default_rng(seed).integers(0, n, (m, 2))
    both = np.concatenate([edges, edges[:, ::-1]])
    which = np.tile(np.arange(m), 2)
    meets = [{(b, k) for (a, b), k in zip(both.tolist(), which, strict=True) if a == i} for i in range(n)]
    reached = [{i} for i in range(n)]
    for _ in range(n):
        reached = [found | {other for node in found for other, _ in meets[node]} for found in reached]
    part = connected_parts(n, edges)
    assert [set(np.flatnonzero(part == part[i])) for i in range(n)] == reached
    nodes, along = neighbour_table(n, *both.T, which)
    for i in range(n):
        real = along[i] < m
        assert set(zip(nodes[i][real], along[i][real], strict=True)) == meets[i]
        assert np.all(nodes[i][~real] == 0)
        assert np.all(along[i][~real] == m)
    classes = colour_classes(n, edges[edges[:, 0] != edges[:, 1]])
    assert sorted(np.concatenate(classes)) == list(range(n))
    assert all(not {other for other, _ in meets[i]} & (set(group) - {i}) for group in classes for i in group)


@given(seed=seeds, n=st.integers(2, 9), large=st.booleans())
def test_roles_see_the_graph_from_the_nodes_that_settle(seed, n, large):
    """Small graphs as they are, large ones with loners beside."""
    draw, size = np.random.default_rng(seed), n + 65 * large
    pairs = np.array(list(itertools.combinations(range(n), 2)))
    edges, order = pairs[draw.random(len(pairs)) < 0.5], draw.permutation(n)
    inputs, references, outputs = order[: n // 3], order[n // 3 : n // 3 + 1], order[n // 3 + 1 : n // 3 + 2]
    roles = Roles.of(Graph.from_edges(edges, size), inputs, references, outputs)
    assert isinstance(roles, CompiledRoles if large else Roles)
    seen = [*roles.free, *inputs, *references]
    assert sorted(seen) == list(range(size))
    np.testing.assert_array_equal(roles.place[np.asarray(seen)], np.arange(size))
    np.testing.assert_array_equal(roles.free[roles.slots], outputs)
    number = {pair: k for k, (i, j) in enumerate(edges.tolist()) for pair in ((i, j), (j, i))}
    for node, row, colour in zip(roles.free.tolist(), roles.rows, roles.colour, strict=True):
        np.testing.assert_array_equal(row, [number.get((node, other), len(edges)) for other in seen])
        same = roles.free[roles.colour == colour]
        assert not any((node, other) in number for other in same.tolist())
    assert set(roles.colour) == set(range(int(roles.colours)))
    part = connected_parts(size, edges)
    np.testing.assert_array_equal(roles.roots, [np.flatnonzero(part == p)[0] for p in part])
    assert not roles.crowded


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 3)], r"nodes from 0 to 2, got \(0, 3\)"),
        ([(-1, 0)], r"nodes from 0 to 2, got \(-1, 0\)"),
        ([(1, 1)], r"self-coupling \(1, 1\)"),
        ([(0, 1), (1, 0)], r"\(0, 1\) more than once"),
        ([(0.0, 1.0)], "integers"),
        ([(0, 1, 2)], r"\(m, 2\)"),
    ],
)
def test_bad_edges_are_named(edges, message):
    with pytest.raises(ValueError, match=f"edges: .*{message}"):
        Graph.from_edges(edges, 3)


@pytest.mark.parametrize(
    ("couplings", "shape", "message"),
    [
        ((Dense(jnp.ones((3, 2))), Dense(jnp.ones((4, 2)))), (3,), "coupling 1: weight: wanted 2 rows"),
        ((Convolution(jnp.ones((3, 3, 2, 4))),), (6, 6, 1), r"coupling 0: weight: .* \(height, width, 2\)"),
        ((Convolution(jnp.ones((3, 3, 1, 4)), "max"),), (5, 5, 1), "coupling 0: pooling: windows of 2x2"),
        ((Convolution(jnp.ones((5, 5, 1, 4)), padding=0),), (4, 4, 1), "coupling 0: weight: a 5x5 kernel does not fit"),
    ],
)
def test_groups_that_do_not_fit_are_named(couplings, shape, message):
    with pytest.raises(ValueError, match=message):
        chain_of_groups(couplings, shape)


def test_groups_in_a_row():
    couplings = (
        Convolution(jnp.ones((3, 3, 1, 4)), "max"),
        Convolution(jnp.ones((3, 3, 4, 8))),
        Dense(jnp.ones((72, 10))),
    )
    assert chain_of_groups(couplings, (6, 6, 1)) == ((6, 6, 1), (3, 3, 4), (3, 3, 8), (10,))


def test_bad_couplings_are_named():
    with pytest.raises(ValueError, match="pooling: wanted None or one of"):
        Convolution(jnp.ones((3, 3, 1, 1)), "mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="padding: wanted"):
        Convolution(jnp.ones((3, 3, 1, 1)), padding=-1)
    with pytest.raises(ValueError, match=r"weight: wanted shape \(3,\)"):
        Bonds(jnp.ones(4), GRAPHS["triangle and a loner"])
