"""Discrete time: the same equilibria as by other solvers, and steps that are those of a recurrent network."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import SquaredError
from substrates import (
    DiscreteTime,
    HopfieldNetwork,
    Nudge,
    Pin,
    PredictiveCodingNetwork,
    ResistorNetwork,
    SmoothHopfieldNetwork,
    Status,
)
from substrates.substrate import NudgeRefusedError

KEY = jax.random.key(0)
EDGES = [(0, 2), (0, 3), (1, 2), (1, 4), (2, 3), (3, 4)]
CIRCUIT = ResistorNetwork.from_edges(
    EDGES, n=5, inputs=[0, 1], outputs=[3, 4], conductance=jnp.array([1.0, 0.5, 0.8, 1.2, 0.4, 0.9])
)
HARD = HopfieldNetwork.layered((2, 4, 3, 2), key=KEY)
SMOOTH = SmoothHopfieldNetwork.layered((2, 4, 3, 2), key=KEY, activation="tanh")
X, NUDGE = jnp.array([0.8, 0.3]), Nudge(SquaredError(), jnp.array([0.5, -0.2]), 0.3)


@pytest.mark.parametrize("solver", [DiscreteTime(), DiscreteTime(0.2, "energy-based")], ids=lambda s: s.setting)
@pytest.mark.parametrize(
    "system", [HARD, SMOOTH, CIRCUIT, PredictiveCodingNetwork.dense((2, 4, 2), key=KEY)], ids=lambda s: type(s).__name__
)
def test_it_settles_where_the_solver_of_the_class_does(system, solver):
    for nudge in (dataclasses.replace(NUDGE, beta=0.0), NUDGE):
        found, wanted = system.relax(X, nudge, solver=solver), system.relax(X, nudge)
        assert bool(found.converged)
        for one, other in zip(jax.tree.leaves(found.state), jax.tree.leaves(wanted.state), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)
        np.testing.assert_allclose(found.energy, wanted.energy, atol=1e-9)


def prototype(net, state, rho):
    """One step of the network by hand: what every layer feels from those before and after it, and the nudge."""
    w = [c.weight for c in net.coupling]
    first, second, out = state
    sent = rho(first), rho(second)
    return X @ w[0] + w[1] @ sent[1], sent[0] @ w[1] + w[2] @ out, sent[1] @ w[2] + 0.3 * (NUDGE.target - out)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_prototypical_steps_are_those_of_the_recurrent_network(count):
    draw = np.random.default_rng(1)
    start = tuple(jnp.asarray(draw.uniform(size=n)) for n in (4, 3, 2))
    hard, smooth = start, start
    for _ in range(count):
        *hidden, out = prototype(HARD, hard, lambda s: s)
        hard = (*(jnp.clip(u, 0, 1) for u in hidden), out)
        smooth = prototype(SMOOTH, smooth, jnp.tanh)
    for net, wanted in ((HARD, hard), (SMOOTH, smooth)):
        found = net.relax(X, NUDGE, start, solver=DiscreteTime().limited(count))
        assert found.status == Status.truncated
        assert int(found.steps) == count
        for one, other in zip(found.state, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-14)


def test_energy_based_steps_descend_the_total_energy():
    start = jax.tree.map(lambda s: s + 0.1, CIRCUIT.initial_state(X))
    found = CIRCUIT.relax(X, NUDGE, start, solver=DiscreteTime(0.2, "energy-based").limited(1))
    slope = jax.grad(CIRCUIT.total_energy)(start, X, NUDGE)
    for one, s, g in zip(*map(jax.tree.leaves, (found.state, start, slope)), strict=True):
        np.testing.assert_allclose(one, s - 0.2 * g, atol=1e-15)


def test_units_that_are_updated_at_once_may_swing_for_ever():
    """Two units that excite each other, one of them on, take turns; one after the other they both come on."""
    pair = HopfieldNetwork.layered((1, 1, 1), key=KEY)
    pair = eqx.tree_at(lambda n: [c.weight for c in n.coupling], pair, [jnp.zeros((1, 1)), jnp.full((1, 1), 2.0)])
    start = jnp.zeros(1), jnp.full(1, 2.0)
    found = pair.relax(jnp.zeros(1), start=start, solver=DiscreteTime(max_steps=1001))
    assert found.status == Status.out_of_steps
    np.testing.assert_array_equal(jnp.concatenate(found.state), [1.0, 0.0])
    assert bool(pair.relax(jnp.zeros(1), start=start).converged)


def test_steps_that_are_too_long_are_told():
    assert CIRCUIT.relax(X, solver=DiscreteTime(5.0, "energy-based", 5000)).status == Status.not_finite


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: DiscreteTime(0.0), ValueError, "dt: wanted a positive number, got 0.0"),
        (lambda: DiscreteTime(float("nan")), ValueError, "dt: wanted a positive number, got nan"),
        (lambda: DiscreteTime(setting="continuous"), ValueError, "setting: wanted one of .* got 'continuous'"),
        (lambda: HARD.relax(X, Pin(jnp.zeros(2)), solver=DiscreteTime()), NudgeRefusedError, "got a Pin"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
