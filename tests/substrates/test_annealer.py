"""Annealers outside: dimod's models and samplers against the models and solvers here."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import CrossEntropy, EquilibriumPropagation, SquaredError, fit
from substrates import AnnealedIsing, IsingModel, Nudge, Pin
from substrates.classical.ising.enumeration import Enumeration
from theory_checks import check_substrate

dimod = pytest.importorskip("dimod")
samplers = pytest.importorskip("dwave.samplers")

EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 4)])
X, Y = jnp.array([0.8]), jnp.array([1.0, -1.0])


def graph(seed):
    draw = np.random.default_rng(seed)
    return IsingModel.from_edges(
        EDGES, 5, coupling=draw.normal(size=6), field=draw.normal(size=5), inputs=[0], outputs=[2, 4]
    )


LAYERS = IsingModel.layered((2, 3, 2), key=jax.random.key(3), copies=2, levels=(0.0, 1.0))


class Reversed:
    """A sampler that returns what it is told to start from and every single flip of it, the worst first."""

    def __init__(self):
        self.parameters = {"num_reads": [], "initial_states": []}
        self.asked = []

    def sample(self, bqm, num_reads, initial_states=None):
        self.asked.append(initial_states)
        if initial_states is None:
            return dimod.ExactSolver().sample(bqm)
        start = np.asarray(initial_states[0], np.int8)
        samples = np.array([np.where(np.arange(start.size) == k, -start, start) for k in range(-1, start.size)])
        found = dimod.SampleSet.from_samples_bqm((samples, list(range(start.size))), bqm)
        return found.slice(None, None, -1, sorted_by="energy")


# the sign of dimod


@pytest.mark.parametrize("kind", ["graph", "layers"])
@pytest.mark.parametrize("beta", [0.0, 1.7])
def test_a_quadratic_model_has_the_energy_of_every_configuration(kind, beta):
    net, x = (graph(0), X) if kind == "graph" else (LAYERS, jnp.array([0.4, -1.0]))
    nudge = Nudge(SquaredError(), Y, beta)
    bqm = net.to_bqm(x, nudge)
    unravel = jax.flatten_util.ravel_pytree(net.initial_state(x))[1]
    configurations = list(itertools.product([-1.0, 1.0], repeat=net.size))
    wanted = jax.vmap(lambda s: net.total_energy(unravel(s), x, nudge))(jnp.asarray(configurations))
    found = [bqm.energy(dict(enumerate(spins))) for spins in configurations]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_there_and_back():
    net = graph(1)
    bqm = net.to_bqm(X)
    back = IsingModel.from_bqm(bqm, outputs=[1, 3])
    np.testing.assert_allclose(back.relax(jnp.zeros(0)).energy, net.relax(X).energy, rtol=1e-12)
    exact = dimod.ExactSolver().sample(bqm).first
    np.testing.assert_allclose(exact.energy, net.relax(X).energy, rtol=1e-12)
    assert [exact.sample[k] for k in range(4)] == net.relax(X).state.tolist()


def test_a_binary_model_becomes_spins():
    bqm = dimod.BinaryQuadraticModel({"a": 1.0, "b": -2.0}, {("a", "b"): 1.5}, 0.25, "BINARY")
    net = IsingModel.from_bqm(bqm, outputs=["b"])
    for a, b in itertools.product((0, 1), repeat=2):
        energy = net.energy(jnp.array([2.0 * a - 1, 2.0 * b - 1]), jnp.zeros(0))
        np.testing.assert_allclose(energy, bqm.energy({"a": a, "b": b}))
    assert bqm.vartype is dimod.BINARY
    with pytest.raises(ValueError, match="outputs: wanted labels of variables of the model, got 'c'"):
        IsingModel.from_bqm(bqm, outputs=["c"])
    with pytest.raises(ValueError, match="bqm: wanted at least one variable"):
        IsingModel.from_bqm(dimod.BinaryQuadraticModel("SPIN"))


# samplers


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=["squared", "entropy"])
def test_an_annealer_finds_the_ground_states(cost):
    net = graph(2)
    system = AnnealedIsing(net, options={"num_sweeps": 100})
    free = system.relax(X, key=jax.random.key(1))
    wanted = net.relax(X, solver=Enumeration())
    np.testing.assert_allclose(free.energy, wanted.energy, rtol=1e-12)
    for beta in (-1.5, 2.5):
        nudge = Nudge(cost, Y, beta)
        found = system.relax(X, nudge, free.state, key=jax.random.key(1))
        assert found.converged
        np.testing.assert_allclose(found.energy, net.relax(X, nudge, solver=Enumeration()).energy, rtol=1e-12)


def test_it_keeps_the_laws_under_jit_vmap_and_scan():
    xs, ys = jnp.array([[0.8], [-0.3]]), jnp.array([[1.0, -1.0], [-1.0, -1.0]])
    check_substrate(AnnealedIsing(graph(3), options={"num_sweeps": 50}), xs, ys).raise_if_failed()


def test_the_nudged_phase_starts_from_the_free_state_and_keeps_the_lowest_sample():
    sampler, net = Reversed(), graph(4)
    system = AnnealedIsing(net, sampler)
    free = system.relax(X)
    nudged = system.relax(X, Nudge(SquaredError(), Y, 2.0), free.state)
    jax.block_until_ready(nudged)
    assert sampler.asked[0] is None
    np.testing.assert_array_equal(sampler.asked[-1][0], free.state)
    assert nudged.converged
    assert float(nudged.energy) <= float(net.total_energy(free.state, X, Nudge(SquaredError(), Y, 2.0)))


def test_it_is_pure_given_its_key():
    net = IsingModel.lattice((5, 5), coupling=np.random.default_rng(0).normal(size=40))
    system = AnnealedIsing(net, options={"num_sweeps": 1, "num_reads": 1})
    relax = eqx.filter_jit(lambda system, key: system.relax(jnp.zeros(0), key=key).state)
    one, again = relax(system, jax.random.key(0)), relax(system, jax.random.key(0))
    others = [relax(system, jax.random.key(k)) for k in range(1, 5)]
    np.testing.assert_array_equal(one, again)
    assert any(np.any(one != other) for other in others)


@pytest.mark.slow
def test_an_annealer_learns():
    xs, ys = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]), jnp.array([[-1.0], [1.0], [1.0], [1.0]])
    net = IsingModel.layered((2, 3, 1), key=jax.random.key(1), copies=2, levels=(-1.0, 1.0))
    system = AnnealedIsing(net, options={"num_sweeps": 20, "num_reads": 2})
    rule = EquilibriumPropagation(10.0, "positive")
    run = fit(system, rule, (xs, ys), optimiser=optax.adam(0.05), epochs=40, key=jax.random.key(0), progress=False)
    shown = rule(run.substrate, xs, ys).output
    np.testing.assert_array_equal(jnp.sign(shown), ys)
    assert isinstance(run.substrate, AnnealedIsing)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AnnealedIsing(None), "model: wanted an IsingModel, got NoneType"),
        (
            lambda: AnnealedIsing(graph(0), object()),
            "sampler: wanted a dimod sampler, with a method sample",
        ),
        (
            lambda: AnnealedIsing(graph(0), options={"sweeps": 10}),
            r"options: wanted options of the sampler's method sample, got \['sweeps'\], which Simulated",
        ),
        (
            lambda: AnnealedIsing(graph(0), reverse_options={"seed": 10}),
            r"reverse_options: .* got \['seed'\], which relax gives itself",
        ),
        (lambda: AnnealedIsing(graph(0), options={"num_reads": 0}), "options: wanted a whole number num_reads"),
        (lambda: AnnealedIsing(graph(0)).relax(X, Pin(Y)), "nudge: wanted a Nudge or None, got a Pin"),
    ],
)
def test_what_is_no_annealer_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
