"""Elastic networks against closed forms, finite differences, conservation laws, and SciPy's minimisers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from substrates import ElasticNetwork, Status
from substrates.classical.elastic.lattices import KINDS, lattice_points

seeds = st.integers(0, 2**31 - 1)

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))


def triangle_lattice(seed=0, **options):
    """Twenty disordered nodes: the left side clamped, one input on the right side, two nodes read."""
    defaults = {
        "clamped": ["left"],
        "inputs": [{("right", 0): 1.0}, {("right", 1): 1.0}],
        "outputs": [6, (13, 1)],
        "disorder": 0.1,
    }
    return ElasticNetwork.lattice("triangular", (5, 4), key=jax.random.key(seed), **{**defaults, **options})


LATTICE = triangle_lattice()


def varied(net, seed, spread=0.05):
    """The network with random stiffnesses and rest lengths, so that it is stressed at rest."""
    draw = np.random.default_rng(seed)
    k = draw.uniform(0.5, 2.0, net.stiffness.shape)
    lengths = np.asarray(net.rest_length) * (1 + spread * draw.uniform(-1, 1, net.stiffness.shape))
    return eqx.tree_at(lambda n: (n.stiffness, n.rest_length), net, (jnp.asarray(k), jnp.asarray(lengths)))


def energy_by_hand(net, positions):
    """The stored energy, spring by spring, in numpy."""
    total = 0.0
    for (i, j), k, rest in zip(net.edges, np.asarray(net.stiffness), np.asarray(net.rest_length), strict=True):
        total += 0.5 * k * (np.linalg.norm(positions[j] - positions[i]) - rest) ** 2
    return total


def slope(function, at, step=1e-6):
    """The gradient of a scalar function of an array, by central differences."""
    flat = np.asarray(at, float).ravel()
    shifted = lambda k, h: (flat + h * (np.arange(flat.size) == k)).reshape(np.shape(at))
    ends = [(function(shifted(k, step)), function(shifted(k, -step))) for k in range(flat.size)]
    return np.array([(up - down) / (2 * step) for up, down in ends]).reshape(np.shape(at))


# closed forms


def hanging(load, **options):
    return ElasticNetwork.from_edges(
        [(0, 1)], positions=[[0.0, 0.0], [1.0, 0.0]], clamped=[0], inputs=[], outputs=[1], stiffness=2.0,
        loads={1: load}, floppy=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("load", [(0.3, 0.4), (-0.5, 0.0), (0.0, 0.1)])
def test_a_spring_hangs_along_its_load(load):
    # at (-0.5, 0) the start is a saddle: the spring has to swing round
    found = relax(hanging(load), jnp.zeros(0))
    assert found.status == Status.converged
    force = np.hypot(*load)
    wanted = np.asarray(load) / force * (1 + force / 2)
    np.testing.assert_allclose(found.state[0], wanted, atol=1e-9)
    np.testing.assert_allclose(found.energy, force**2 / 4 - wanted @ load, atol=1e-12)


def test_a_spring_without_a_load_may_turn_and_says_so():
    net = ElasticNetwork.from_edges(
        [(0, 1)], positions=[[0.0, 0.0], [1.0, 0.0]], clamped=[0], inputs=[], outputs=[1], floppy=True
    )
    found = relax(net, jnp.zeros(0))
    assert found.status == Status.zero_mode
    assert not bool(found.usable)


def test_springs_in_series_share_the_extension_by_their_compliance():
    k = np.array([1.0, 2.0, 4.0, 0.5])
    rollers = [(node, 1) for node in range(1, 5)]
    net = ElasticNetwork.from_edges(
        [(i, i + 1) for i in range(4)], positions=[[float(i), 0.0] for i in range(5)], clamped=[0, *rollers],
        inputs=[(4, 0)], outputs=[(1, 0), (2, 0), (3, 0)], stiffness=k,
    )  # fmt: skip
    x = jnp.array([0.6])
    found = relax(net, x)
    assert found.status == Status.converged
    assert found.state.shape == (3,), "where single coordinates are prescribed the state is flat"
    force = 0.6 / np.sum(1 / k)
    np.testing.assert_allclose(net.tensions(found.state, x), force, atol=1e-12)
    np.testing.assert_allclose(net.read(found.state, x), np.cumsum(force / k)[:-1], atol=1e-12)
    np.testing.assert_allclose(net.stored_energy(found.state, x), force**2 / (2 * k), atol=1e-12)
    np.testing.assert_allclose(net.reactions(found.state, x)[[0, 4], 0], [-force, force], atol=1e-12)


def truss(load):
    return ElasticNetwork.from_edges(
        [(0, 2), (1, 2)], positions=[[-1.0, 0.0], [1.0, 0.0], [0.0, 0.3]], clamped=[0, 1], inputs=[], outputs=[(2, 1)],
        loads={2: (0.0, -load)},
    )  # fmt: skip


def test_a_shallow_truss_snaps_through_at_its_critical_load():
    # von Mises's truss: 2 k (r - l) y / r = -P with r^2 = 1 + y^2
    rest = np.sqrt(1.09)
    lift = lambda y: 2 * (rest - np.hypot(1, y)) * y / np.hypot(1, y)
    peak = scipy.optimize.minimize_scalar(lambda y: -lift(y), bounds=(0.0, 0.3), method="bounded")
    critical, at = -peak.fun, peak.x
    for part, bracket in ((0.5, (at, 0.3)), (0.99, (at, 0.3)), (1.01, (-2.0, -0.3)), (3.0, (-2.0, -0.3))):
        found = relax(truss(part * critical), jnp.zeros(0))
        assert found.status == Status.converged
        y = scipy.optimize.brentq(lambda y, p=part: lift(y) - p * critical, *bracket, xtol=1e-14)
        np.testing.assert_allclose(found.state[0], [0.0, y], atol=1e-7)


def test_a_pressed_column_buckles_at_the_critical_compression_to_the_height_of_the_closed_form():
    net = ElasticNetwork.from_edges(
        [(0, 1), (1, 2), (1, 3), (1, 4)],
        positions=[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, -1.0]],
        clamped=[(1, 0), 3, 4], inputs=[{(0, 0): 0.5, (0, 1): 0.0, (2, 0): -0.5, (2, 1): 0.0}], outputs=[(1, 1)],
        stiffness=np.array([1.0, 1.0, 0.05, 0.05]),
    )  # fmt: skip
    # each half has length a = 1 - u/2; it buckles where r = k/(k + k') exceeds a, and then r stays
    r = 1 / 1.05
    critical = 2 * (1 - r)
    for part, status in ((0.5, Status.converged), (0.97, Status.converged), (1.0, Status.zero_mode)):
        found = relax(net, jnp.array([part * critical]))
        assert found.status == status
        np.testing.assert_allclose(found.state, 0.0, atol=1e-9)
    for part in (1.03, 1.5, 3.0):
        found = relax(net, jnp.array([part * critical]))
        assert found.status == Status.converged
        height = np.sqrt(r**2 - (1 - part * critical / 2) ** 2)
        np.testing.assert_allclose(np.abs(found.state), height, atol=1e-8)


def test_a_string_is_as_stiff_sideways_as_it_is_tense():
    net = ElasticNetwork.from_edges(
        [(0, 1), (1, 2)], positions=[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], clamped=[0], inputs=[{2: (1.0, 0.0)}],
        outputs=[1], stiffness=3.0, floppy=True,
    )  # fmt: skip
    tense = net.rigidity(jnp.array([0.5]))
    np.testing.assert_allclose(tense.eigenvalues, [2 * 3 * (1 - 1 / 1.25), 6.0], atol=1e-12)
    assert (len(tense.zero_modes), tense.soft, tense.stable) == (1, 0, True)
    loose = net.rigidity()
    assert (len(loose.zero_modes), loose.soft, loose.stable) == (1, 1, False)
    assert relax(net, jnp.zeros(1)).status == Status.zero_mode


# rigidity


def free_lattice(kind, shape):
    points, edges = lattice_points(kind, shape)
    return ElasticNetwork.from_edges(edges, positions=points, inputs=[], outputs=[0], floppy=True)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_modes_less_self_stress_is_maxwells_count(kind):
    dim = len(KINDS[kind][0])
    net = free_lattice(kind, (3,) * dim if kind != "kagome" else (2, 2))
    at = net.rigidity(jnp.zeros(0), net.initial_state(jnp.zeros(0)))
    # the rank of the extensions, by finite differences of the lengths themselves
    lengths = lambda flat: np.linalg.norm(
        flat.reshape(-1, dim)[net.edges[:, 1]] - flat.reshape(-1, dim)[net.edges[:, 0]], axis=1
    )
    flat = net.reference.ravel()
    steps = 1e-5 * np.eye(flat.size)
    rank = np.linalg.matrix_rank(np.array([(lengths(flat + h) - lengths(flat - h)) / 2e-5 for h in steps]), tol=1e-6)
    assert len(at.zero_modes) == flat.size - rank
    assert len(at.self_stress) == len(net.edges) - rank
    assert at.maxwell_count == flat.size - len(net.edges) == len(at.zero_modes) - len(at.self_stress)
    assert at.rigid_motions == dim * (dim + 1) // 2
    assert at.soft == len(at.zero_modes), "nothing is stressed, so the Hessian has the same zero modes"


def test_known_lattices_have_their_known_mechanisms():
    mechanisms = {}
    for kind, shape in (("square", (4, 4)), ("triangular", (4, 4)), ("braced square", (4, 4)), ("fcc", (2, 2, 2))):
        net = free_lattice(kind, shape)
        mechanisms[kind] = net.rigidity(jnp.zeros(0), net.initial_state(jnp.zeros(0))).mechanisms
    # a square lattice of N x N nodes without braces has 2N - 3: its rows and columns shear one by one
    assert mechanisms == {"square": 5, "triangular": 0, "braced square": 0, "fcc": 0}


def test_a_state_of_self_stress_balances_and_a_zero_mode_stretches_nothing():
    net = free_lattice("braced square", (3, 3))
    at = net.rigidity(jnp.zeros(0), net.initial_state(jnp.zeros(0)))
    ends = net.reference[net.edges]
    unit = (ends[:, 1] - ends[:, 0]) / np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)[:, None]
    for tension in at.self_stress:
        forces = np.zeros((net.n, 2))
        np.add.at(forces, net.edges[:, 0], tension[:, None] * unit)
        np.add.at(forces, net.edges[:, 1], -tension[:, None] * unit)
        assert np.max(np.abs(forces)) < 1e-12
    for mode in at.zero_modes:
        moves = mode.reshape(-1, 2)[net.edges]
        assert np.max(np.abs(np.sum(unit * (moves[:, 1] - moves[:, 0]), axis=1))) < 1e-12
    assert "states of self-stress" in str(at)


# forces and measurements


def test_forces_and_measurements_are_the_derivatives_of_the_energy():
    net, x = varied(LATTICE, 1), jnp.array([0.3, -0.1])
    state = net.initial_state(x) + 0.1 * jax.random.normal(jax.random.key(2), net.topology.state_shape)
    energy = jax.jit(lambda s: net.energy(s, x))
    np.testing.assert_allclose(energy(state), energy_by_hand(net, np.asarray(net.positions(state, x))), rtol=1e-13)
    np.testing.assert_allclose(net.force(state, x), -slope(energy, state), atol=1e-8)
    observed = net.measure(state[None], x[None])
    by_stiffness = jax.jit(lambda k: eqx.tree_at(lambda n: n.stiffness, net, k).energy(state, x))
    by_length = jax.jit(lambda rest: eqx.tree_at(lambda n: n.rest_length, net, rest).energy(state, x))
    np.testing.assert_allclose(observed.stiffness, slope(by_stiffness, net.stiffness), atol=1e-8)
    np.testing.assert_allclose(observed.rest_length, slope(by_length, net.rest_length), atol=1e-8)


def test_a_contrast_of_close_states_does_not_cancel():
    net, x = varied(LATTICE, 3), jnp.array([[0.3, -0.1]])
    state = net.initial_state(x[0])[None]
    direction = jax.random.normal(jax.random.key(4), state.shape)
    exact = jax.jvp(lambda s: net.measure(s, x).stiffness, (state,), (direction,))[1]
    small = 1e-12
    found = net.contrast(state + small * direction, state, x).stiffness / small
    error = lambda values: np.max(np.abs(values - exact)) / np.max(np.abs(exact))
    plain = (net.measure(state + small * direction, x).stiffness - net.measure(state, x).stiffness) / small
    assert error(found) < 2e-3, "positions of size 4 are rounded at 1e-15"
    large = net.contrast(state + 0.1 * direction, state, x)
    difference = jax.tree.map(jnp.subtract, net.measure(state + 0.1 * direction, x), net.measure(state, x))
    np.testing.assert_allclose(large.stiffness, difference.stiffness, atol=1e-14)
    np.testing.assert_allclose(large.rest_length, difference.rest_length, atol=1e-14)
    assert np.all(np.isfinite(plain))


@pytest.mark.parametrize("dim", [2, 3])
def test_the_stress_tensor_is_the_derivative_of_the_energy_in_a_strain(dim):
    kind, shape = ("triangular", (4, 4)) if dim == 2 else ("fcc", (2, 2, 1))
    net = varied(free_lattice(kind, shape), 5)
    state, x = net.initial_state(jnp.zeros(0)), jnp.zeros(0)
    places = np.asarray(net.positions(state, x))
    strained = lambda strain: energy_by_hand(net, places @ (np.eye(dim) + strain).T)
    stress = net.stress_tensor(state, x, volume=2.5)
    np.testing.assert_allclose(stress, slope(strained, np.zeros((dim, dim))) / 2.5, atol=1e-8)
    np.testing.assert_allclose(stress, np.asarray(stress).T, atol=1e-13)
    np.testing.assert_allclose(net.stress_tensor(state, x) * net.topology.volume, 2.5 * stress, rtol=1e-12)


@given(seeds)
def test_forces_and_torques_balance_as_a_whole(seed):
    net = varied(LATTICE, seed)
    draw = np.random.default_rng(seed)
    x = jnp.asarray(draw.uniform(-0.4, 0.4, 2))
    found = relax(net, x)
    assert found.status == Status.converged
    reactions, places = np.asarray(net.reactions(found.state, x)), np.asarray(net.positions(found.state, x))
    assert np.max(np.abs(np.sum(reactions, axis=0))) < 1e-9
    assert abs(np.sum(places[:, 0] * reactions[:, 1] - places[:, 1] * reactions[:, 0])) < 1e-9
    assert found.energy <= net.energy(net.initial_state(x), x) + 1e-12


# invariances


@pytest.mark.parametrize("dim", [2, 3])
def test_rigid_motions_carry_the_equilibrium_along(dim):
    draw = np.random.default_rng(dim)
    points, edges = lattice_points(*(("triangular", (4, 4)) if dim == 2 else ("bcc", (2, 2, 1))))
    points = points + 0.05 * draw.normal(size=points.shape)
    rotation = np.linalg.qr(draw.normal(size=(dim, dim)))[0]
    shift, push = draw.normal(size=dim), np.array([0.3, -0.2, 0.1])[:dim]
    left = [i for i in range(len(points)) if points[i, 0] <= np.sort(points[:, 0])[3]]
    far = int(np.argmax(points[:, 0]))
    build = lambda places, vector: varied(
        ElasticNetwork.from_edges(
            edges, positions=places, clamped=left, inputs=[{far: vector}], outputs=[len(points) // 2]
        ),
        7,
    )
    still, turned = build(points, push), build(points @ rotation.T + shift, rotation @ push)
    # rest lengths follow from the distances, which are the same
    x = jnp.array([1.0])
    one, other = relax(still, x), relax(turned, x)
    assert one.status == other.status == Status.converged
    np.testing.assert_allclose(other.energy, one.energy, rtol=1e-9)
    np.testing.assert_allclose(other.state, np.asarray(one.state) @ rotation.T + shift, atol=1e-8)


def test_readings_show_the_same_equilibrium():
    nets = {
        reading: triangle_lattice(reading=reading, outputs=[(6, 13)] if reading == "distance" else [6, 13])
        for reading in ("displacement", "position", "distance")
    }
    x = jnp.array([0.4, 0.1])
    state = relax(LATTICE, x).state
    moved, places, apart = (net.read(state, x) for net in nets.values())
    np.testing.assert_allclose(places - moved, LATTICE.reference[[6, 13]].ravel(), atol=1e-14)
    np.testing.assert_allclose(apart, [np.linalg.norm(places[2:] - places[:2])], atol=1e-14)


# packings


@pytest.mark.parametrize(("dim", "coordination"), [(2, None), (2, 4.4), (3, 8.0)])
def test_packings_are_rigid_and_as_coordinated_as_asked(dim, coordination):
    net = ElasticNetwork.packing(
        40, dim=dim, coordination=coordination, clamped=["left"], inputs=[{("right", 0): 1.0}], outputs=[(20, 0)],
        key=jax.random.key(1),
    )  # fmt: skip
    assert net.dim == dim
    if coordination is not None:
        assert len(net.edges) == round(coordination * 40 / 2)
    at = net.rigidity(jnp.zeros(1), net.initial_state(jnp.zeros(1)))
    assert at.stable
    assert len(at.zero_modes) == 0
    assert np.all(net.reference >= 0)
    assert np.all(net.reference <= 1)
    again = ElasticNetwork.packing(
        40, dim=dim, coordination=coordination, clamped=["left"], inputs=[{("right", 0): 1.0}], outputs=[(20, 0)],
        key=jax.random.key(1),
    )  # fmt: skip
    assert again.topology == net.topology, "one key draws one packing"


# classes


class Named(ElasticNetwork):
    """An elastic network with something of its own."""

    name: str = eqx.field(static=True, default="bridge")


def test_what_a_subclass_builds_is_of_that_subclass():
    import networkx as nx

    key, held = jax.random.key(0), {"clamped": ["left"], "inputs": [], "outputs": [5]}
    points, edges = lattice_points("triangular", (3, 3))
    graph = nx.Graph(edges.tolist())
    built = [
        Named.from_edges(edges, positions=points, clamped=[0, 1], inputs=[], outputs=[5]),
        Named.from_networkx(
            graph, positions=dict(enumerate(points)), stiffness=1.0, clamped=[0, 1], inputs=[], outputs=[5]
        ),
        Named.lattice("triangular", (3, 3), **held),
        Named.packing(20, key=key, **held),
        Named.layered((2, 3, 1), key=key),
        Named.for_task(2, 1, sizes=(3,), key=key),
    ]
    for net in built:
        assert type(net) is Named
        assert net.name == "bridge"


def test_the_hessian_is_the_second_derivative_of_the_energy():
    net, x = varied(LATTICE, 3), jnp.array([0.4, 0.1])
    state = net.initial_state(x)
    wanted = jax.hessian(lambda flat: net.energy(flat.reshape(state.shape), x))(state.ravel())
    np.testing.assert_allclose(net.hessian(state, x), wanted, atol=1e-12)
