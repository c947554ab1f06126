"""The command that teaches oscillators two vowels by their natural frequencies: its network, its starts, its orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmark_files import benchmark
from scipy.optimize import root

from substrates.substrate import split_parameters

X = np.array([0.7, -0.4])


@pytest.fixture(scope="module")
def command():
    return benchmark("frequencies")


def matrix(command, net):
    couplings = np.zeros((9, 9))
    for (i, j), strength in zip(command.edges(2), net.coupling, strict=True):
        couplings[i, j] = couplings[j, i] = strength
    return couplings


def test_phases_lock_where_kuramotos_equation_rests(command):
    net = command.drawn(3, 2, spectral=False)
    couplings, omega = matrix(command, net), np.concatenate([command.DRIVE * X, net.frequency])

    def velocity(phases):
        whole = np.concatenate([[0.0], phases])
        pulls = np.sum(couplings * np.sin(whole[None] - whole[:, None]), axis=1)
        return (omega - omega.mean() + pulls)[1:]

    rest = root(velocity, np.zeros(8), tol=1e-12)
    assert rest.success
    found = net.relax(jnp.asarray(X))
    np.testing.assert_allclose(found.state, rest.x, atol=1e-9)
    np.testing.assert_allclose(net.read(found.state, X), rest.x[-2:], atol=1e-9)


def test_spectral_frequencies_weigh_modes_by_how_far_they_turn_outputs_apart_for_a_torque(command):
    net = command.drawn(3, 2, spectral=True)
    couplings = matrix(command, net)
    values, modes = np.linalg.eigh((np.diag(couplings.sum(axis=1)) - couplings)[1:, 1:])
    wanted = (modes @ ((modes[-2] - modes[-1]) / values))[1:]
    np.testing.assert_allclose(net.frequency, 0.3 * wanted / np.max(np.abs(wanted)), rtol=1e-9)


def test_as_many_couplings_learn_as_there_are_frequencies(command):
    net = command.drawn(0, 2, spectral=False)
    counts = {what: jax.tree.map(jnp.sum, command.learning_parts(what, net, 0)) for what in command.LEARNING}
    assert {what: (int(c.coupling), int(c.frequency)) for what, c in counts.items()} == {
        "frequencies": (0, 7),
        "as many couplings": (7, 0),
        "all couplings": (24, 0),
    }
    layers = split_parameters(command.Swept.layered(command.LAYERS, key=jax.random.key(0), frequency=0.0))[0]
    numbers = [
        sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(command.digit_mask(what, layers, 0)))
        for what in command.LEARNING
    ]
    assert numbers == [74, 74, 64 * 74]


def test_frequencies_set_the_threshold_and_the_order_of_the_outputs_decides_which_runs_learn(command):
    """All learn by the published read-out; by which output lags, none does, for outputs turn together."""
    seeds = range(4)
    tasks = command.stacked([command.Task.of(*command.drawn_vowels(seed), seed) for seed in seeds])
    each = [command.drawn(seed, 2, spectral=True) for seed in seeds]
    nets, masks = command.stacked(each), command.stacked([command.learning_parts("frequencies", n, 0) for n in each])
    rng = np.random.default_rng(0)
    order = jnp.asarray([[rng.choice(220, 10, replace=False) for _ in range(60)] for _ in seeds])
    before = command.output_phases(nets, tasks)[0]
    phases, converged = command.output_phases(command.descended(nets, masks, tasks, order, 0.8), tasks)
    assert bool(jnp.all(converged))
    vowel = np.asarray(tasks.y)
    right = {name: np.mean(command.told(np.asarray(phases), name) == vowel, axis=1) for name in ("nearest", "lagging")}
    untrained = np.mean(command.told(np.asarray(before), "nearest") == vowel, axis=1)
    assert right["nearest"].min() > 0.9
    assert right["nearest"].mean() > untrained.mean()
    assert right["lagging"].max() < 0.6
    turns = command.turns(np.asarray(before), vowel)
    assert np.abs(turns.mean(axis=1)).min() > 10 * np.ptp(turns, axis=1).max()
