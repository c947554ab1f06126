"""Solvers that count their steps are stopped after a run-time number of them, on every system."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from every_system import SYSTEMS, input_size

from substrates import Nudge, Status
from substrates.substrate import SquaredError

COUNTED = ("resistors of a graph", "layered resistors", "oscillators", "continuous Hopfield", "predictive coding")


@eqx.filter_jit
def settled(net, x, nudge, start, count):
    return net.relax(x, nudge, start, key=jax.random.key(0), solver=net.solver.limited(count))


@pytest.mark.parametrize("name", [*COUNTED, "springs"])
def test_a_nudged_phase_is_stopped_after_as_many_steps_as_are_asked_for(name):
    net = SYSTEMS[name]()
    x = 0.3 * jnp.ones(input_size(net))
    free = net.relax(x, key=jax.random.key(0))
    nudge = Nudge(SquaredError(), net.read(free.state, x) + 0.5, jnp.asarray(0.5))
    stopped = settled(net, x, nudge, free.state, jnp.asarray(1))
    assert stopped.usable, str(stopped)
    assert stopped.converged or (stopped.status == Status.truncated and int(stopped.steps) <= 2)
    whole = settled(net, x, nudge, free.state, jnp.asarray(5000))
    wanted = net.relax(x, nudge, free.state, key=jax.random.key(0))
    assert whole.converged == wanted.converged
    for found, state in zip(*map(jax.tree.leaves, (whole.state, wanted.state)), strict=True):
        assert jnp.allclose(found, state, atol=1e-9)


@pytest.mark.parametrize("name", ["quantum spins at a temperature", "spins at a temperature", "free fermions"])
def test_what_settles_in_one_go_says_so(name):
    net = SYSTEMS[name]()
    assert not any(field.name in ("max_steps", "max_sweeps") for field in dataclasses.fields(net.solver))
    with pytest.raises(TypeError, match="limited: wanted a solver that counts steps"):
        net.solver.limited(3)
