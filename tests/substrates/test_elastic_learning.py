"""Elastic networks that learn: the theorems, finite differences, allostery, and data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import CrossEntropy, EquilibriumPropagation, SquaredError, evaluate, fit, load_data
from substrates import ElasticNetwork, Status
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate, check_substrate

estimate = eqx.filter_jit(lambda rule, *arguments: rule(*arguments))
relax = eqx.filter_jit(lambda net, x: net.relax(x))


def lattice(**options):
    net = ElasticNetwork.lattice(
        "triangular", (4, 3), clamped=["left"], inputs=[{("right", 0): 1.0}, {("right", 1): 1.0}],
        disorder=0.1, key=jax.random.key(0), **{"outputs": [5, (9, 1)], **options},
    )  # fmt: skip
    draw = np.random.default_rng(0)
    k = draw.uniform(0.5, 2.0, net.stiffness.shape)
    lengths = np.asarray(net.rest_length) * (1 + 0.05 * draw.uniform(-1, 1, net.stiffness.shape))
    return eqx.tree_at(lambda n: (n.stiffness, n.rest_length), net, (jnp.asarray(k), jnp.asarray(lengths)))


XS = jnp.array([[0.4, -0.2], [-0.2, 0.1], [0.3, 0.3]])
YS = jnp.array([[0.2, -0.1, 0.1], [0.0, 0.2, -0.1], [0.1, 0.0, 0.3]])


@pytest.mark.slow
def test_the_conformance_kit_finds_no_fault():
    report = check_substrate(lattice(), XS, YS)
    report.raise_if_failed()
    slopes = [law for law in report.laws if law.name.startswith("EP ")]
    assert len(slopes) >= 3
    assert all(law.verdict == "holds" for law in slopes)


def test_small_nudges_of_a_wide_lattice_are_found_beside_the_rounding_of_its_positions():
    """They are a part 1e-5 of what a spring holds; far from the origin positions are rounded by 1e-14."""
    net = ElasticNetwork.lattice(
        "triangular", (96, 96), clamped=["left"], inputs=[{"right": (1.0, 0.0)}], outputs=[48 * 97],
        disorder=0.05, key=jax.random.key(0),
    )  # fmt: skip
    x, moves = jnp.array([9.5]), 0.01 * np.random.default_rng(0).normal(size=(6, 2))
    y = net.read(relax(net, x).state, x)[None] + moves
    for beta in (1e-1, 1e-2, 1e-3):
        found = estimate(EquilibriumPropagation(beta=jnp.asarray(beta), strict=False), net, jnp.stack([x] * 6), y)
        assert all(bool(phase.converged.all()) for phase in found.equilibria)

    def cost(stiffness):
        moved = eqx.tree_at(lambda n: n.stiffness, net, stiffness)
        output = moved.read(moved.relax(x).state, x)
        return jnp.mean(jax.vmap(lambda wanted: SquaredError()(output, wanted))(y))

    wanted = jax.jit(jax.grad(cost))(net.stiffness)
    assert np.linalg.norm(found.gradient.stiffness - wanted) < 1e-5 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_gradients_in_stiffness_and_length_are_those_of_the_cost():
    net = lattice()
    cost = jax.jit(
        lambda net: jnp.mean(jax.vmap(SquaredError())(jax.vmap(lambda x: net.read(net.relax(x).state, x))(XS), YS))
    )
    where = {"stiffness": lambda n: n.stiffness, "rest_length": lambda n: n.rest_length}

    def by_differences(name):
        values, step = where[name](net), 1e-4
        shifted = lambda k, h: cost(eqx.tree_at(where[name], net, values.at[k].add(h)))
        return np.array([(shifted(k, step) - shifted(k, -step)) / (2 * step) for k in range(values.size)])

    errors = {}
    for variant, beta in (("positive", 2e-3), ("positive", 1e-3), ("centered", 4e-2), ("centered", 2e-2)):
        found = estimate(EquilibriumPropagation(beta=jnp.asarray(beta), variant=variant), net, XS, YS).gradient
        for name, get in where.items():
            errors[variant, beta, name] = get(found)
    for name in where:
        wanted = by_differences(name)
        error = lambda variant, beta, n=name, w=wanted: np.linalg.norm(errors[variant, beta, n] - w)
        assert error("positive", 1e-3) < 1e-2 * np.linalg.norm(wanted)
        np.testing.assert_allclose(error("positive", 2e-3) / error("positive", 1e-3), 2.0, rtol=0.05)
        np.testing.assert_allclose(error("centered", 4e-2) / error("centered", 2e-2), 4.0, rtol=0.1)


def test_the_displacement_at_one_node_by_a_force_at_another_is_mutual():
    # Maxwell and Betti, about a state far from rest
    net, x, force = lattice(loads={5: (1e-9, 0.0)}), XS[0], 1e-4

    def moved(node, axis):
        places = []
        for sign in (1, -1):
            load = jnp.zeros((net.n, 2)).at[node, axis].set(sign * force)
            loaded = eqx.tree_at(lambda n: n.load, net, load)
            places.append(loaded.positions(relax(loaded, x).state, x))
        return (places[0] - places[1]) / (2 * force)

    first, second = (5, 0), (9, 1)
    there, back = moved(*first)[second], moved(*second)[first]
    assert abs(there) > 1e-3
    np.testing.assert_allclose(there, back, rtol=1e-6)


def test_training_keeps_stiffnesses_and_lengths_at_their_floors():
    net = lattice(stiffness_floor=0.3, rest_length_floor=0.5)
    pushed = eqx.tree_at(lambda n: (n.stiffness, n.rest_length), net, (net.stiffness - 1.0, net.rest_length - 0.6))
    kept = pushed.constrained()
    np.testing.assert_allclose(kept.stiffness, np.maximum(net.stiffness - 1.0, 0.3))
    np.testing.assert_allclose(kept.rest_length, np.maximum(net.rest_length - 0.6, 0.5))


def allosteric(seed=0):
    """A packing whose source, two nodes that x pushes together, lies far from its target, two nodes whose distance is
    read."""
    points = ElasticNetwork.packing(40, clamped=["left"], inputs=[], outputs=[5], key=jax.random.key(seed))
    left = np.argsort(np.linalg.norm(points.reference - [0.0, 0.5], axis=1))
    right = np.argsort(np.linalg.norm(points.reference - [1.0, 0.5], axis=1))
    source, target = left[:2], right[:2]
    along = points.reference[source[1]] - points.reference[source[0]]
    along /= np.linalg.norm(along)
    return ElasticNetwork.from_edges(
        points.edges, positions=points.reference, clamped=[],
        inputs=[{int(source[0]): -along / 2, int(source[1]): along / 2}],
        outputs=[(int(target[0]), int(target[1]))], reading="distance", stiffness=np.asarray(points.stiffness),
    )  # fmt: skip


@pytest.mark.slow
def test_a_strain_here_learns_to_make_a_strain_there():
    net = allosteric()
    xs = jnp.array([[0.0], [0.1]])
    rest = relax(net, xs[0]).state
    apart = float(net.read(rest, xs[0])[0])
    ys = jnp.array([[apart], [1.15 * apart]])
    before = float(net.read(relax(net, xs[1]).state, xs[1])[0]) / apart - 1
    rates = optax.multi_transform(
        {"k": optax.adam(0.1), "l": optax.adam(0.0005)},
        lambda tree: eqx.tree_at(lambda n: (n.stiffness, n.rest_length), tree, ("k", "l")),
    )
    run = fit(
        net, EquilibriumPropagation(beta=1.0), (xs, ys), optimiser=rates, epochs=200, key=jax.random.key(0),
        batch_size=2, progress=False,
    )  # fmt: skip
    found = [float(run.substrate.read(relax(run.substrate, x).state, x)[0]) / apart - 1 for x in xs]
    assert abs(before) < 0.03, "an untrained network hardly passes the strain on"
    np.testing.assert_allclose(found, [0.0, 0.15], atol=0.01)
    assert np.all(np.asarray(run.substrate.stiffness) >= net.stiffness_floor)
    assert int(np.sum(run.history["unconverged"])) == 0


@pytest.mark.slow
def test_a_sealed_network_learns():
    rule, system = EquilibriumPropagation(beta=0.1), SealedSubstrate(lattice())

    @eqx.filter_jit
    def step(system):
        found = rule(system, XS[:1], YS[:1] / 2)
        moves = jax.tree.map(jnp.negative, found.gradient)
        return eqx.apply_updates(system, moves).constrained(), found.cost

    costs = []
    for _ in range(20):
        system, cost = step(system)
        costs.append(float(cost))
    assert costs[-1] < 1e-3 * costs[0]


@pytest.mark.slow
def test_layers_carry_a_positive_and_a_negative_weight():
    # to first order an output is the difference of what two springs carry; stiffening one turns its sign
    net = ElasticNetwork.layered((1, 1), key=jax.random.key(0))
    x = jnp.array([0.05])
    signs = []
    for pair in ((1.0, 0.2), (0.2, 1.0)):
        moved = eqx.tree_at(lambda n: n.stiffness, net, net.stiffness.at[:2].set(jnp.asarray(pair)))
        found = relax(moved, x)
        assert found.status == Status.converged
        signs.append(float(moved.read(found.state, x)[0]))
    assert signs[0] * signs[1] < 0


@pytest.mark.slow
def test_a_layered_network_learns_to_tell_wines_apart():
    data = load_data("wine", seed=0, validation=0)
    net = ElasticNetwork.for_task(data.n_inputs, data.n_outputs, sizes=(8,), key=jax.random.key(0))
    rule = EquilibriumPropagation(beta=5e-4, cost=CrossEntropy())
    run = fit(net, rule, data.train, optimiser=optax.adam(0.01), epochs=8, key=jax.random.key(1), progress=False)
    before, after = (evaluate(system, data.test) for system in (net, run.substrate))
    assert before.error > 0.3
    assert after.error <= 0.06
    assert int(np.sum(run.history["unconverged"])) == 0


@pytest.mark.slow
def test_a_batch_of_networks_with_many_springs_settles_on_any_number_of_threads():
    # independent batched factorisations in one program once waited for each other for ever, on two cores
    net = ElasticNetwork.for_task(64, 10, key=jax.random.key(0))
    xs = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (16, 64)))

    @eqx.filter_jit
    def both(net):
        return [relax_batch(net, sign * xs).status == Status.converged for sign in (1.0, -1.0)]

    assert all(bool(jnp.all(settled)) for settled in both(net))
