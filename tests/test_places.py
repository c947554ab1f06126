import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csgraph, csr_array
from scipy.spatial.distance import pdist

from substrates.pictures.places import grid_positions, places_of
from substrates.wiring import lattice_edges


@given(st.integers(2, 9), st.integers(2, 9), st.booleans(), st.randoms(use_true_random=False))
def test_a_lattice_lies_on_its_grid_whatever_the_order_of_its_edges(rows, columns, periodic, random):
    edges = lattice_edges((rows, columns), periodic).tolist()
    edges = [pair[:: random.choice((1, -1))] for pair in random.sample(edges, len(edges))]
    places = places_of(rows * columns, edges, "node")
    wanted = {grid_positions(rows, columns).tobytes(), grid_positions(columns, rows).tobytes()}
    assert places.tobytes() in (wanted if periodic else {grid_positions(rows, columns).tobytes()})


def test_a_lattice_with_an_edge_less_is_none():
    edges = lattice_edges((4, 5))[1:]
    assert not np.array_equal(places_of(20, edges, "node"), grid_positions(4, 5))


@pytest.mark.parametrize("n", [120, 400])
def test_distances_on_the_page_follow_those_in_the_graph(n):
    rng = np.random.default_rng(n)
    spots = rng.uniform(size=(n, 2))
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)
    edges = np.argwhere(np.triu(apart < 2.2 / n**0.5, 1))
    graph = csr_array((np.ones(len(edges)), tuple(edges.T)), shape=(n, n))
    part = csgraph.connected_components(graph, directed=False)[1]
    largest = np.flatnonzero(part == np.bincount(part).argmax())
    assert len(largest) > 0.9 * n
    edges = np.searchsorted(largest, edges[np.isin(edges[:, 0], largest)])
    places = places_of(len(largest), edges, "node")
    graph = csgraph.shortest_path(graph[largest][:, largest], directed=False, unweighted=True)
    steps = graph[np.triu_indices(len(largest), 1)]
    assert np.corrcoef(steps, pdist(places))[0, 1] > 0.95


def test_parts_stand_beside_each_other():
    path = np.stack([np.arange(199), np.arange(1, 200)], axis=1)
    places = places_of(400, np.concatenate([path, path + 200]), "node")
    assert np.all(np.isfinite(places))
    assert places[:200, 0].max() < places[200:, 0].min()
    assert places_of(300, np.zeros((0, 2)), "node").shape == (300, 2)


@pytest.mark.parametrize("positions", [np.zeros((3, 3)), np.zeros(4), np.full((4, 2), np.nan)])
def test_places_of_another_shape_are_refused(positions):
    with pytest.raises(ValueError, match=r"positions: wanted shape \(4, 2\), one finite place per spin"):
        places_of(4, [(0, 1)], "spin", positions)
