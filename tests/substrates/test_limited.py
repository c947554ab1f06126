"""Solvers that count their steps are stopped after a run-time number of them, on every system."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from every_system import SYSTEMS, input_size

from substrates import Nudge, Status
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.solvers.generic import DescendThenPolish
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


@pytest.mark.parametrize(
    "name", ["layered resistors", "continuous Hopfield", "smooth Hopfield", "recurrent", "activators and inhibitors"]
)
def test_no_step_at_all_tells_how_far_the_start_is(name):
    net = SYSTEMS[name]()
    x, start = 0.3 * jnp.ones(input_size(net)), net.start(0.3 * jnp.ones(input_size(net)), jax.random.key(0))
    nudge = Nudge(SquaredError(), net.read(start, x) + 0.5, jnp.asarray(0.5))
    stopped = settled(net, x, nudge, start, jnp.asarray(0))
    assert stopped.status == Status.truncated, str(stopped)
    assert int(stopped.steps) == 0
    assert jax.tree.all(jax.tree.map(lambda found, begun: bool(jnp.all(found == begun)), stopped.state, start))
    assert jnp.allclose(stopped.residual, net.residual(start, x, nudge), rtol=1e-9)
    (most,) = {field.name for field in dataclasses.fields(net.solver)} & {"max_steps", "max_sweeps"}
    none = net.relax(x, nudge, start, key=jax.random.key(0), solver=dataclasses.replace(net.solver, **{most: 0}))
    assert none.status == Status.out_of_steps, str(none)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BlockDescent(sweeps=-1), "sweeps: wanted a whole number, at least 0, or None to settle, got -1"),
        (lambda: BlockDescent(sweeps=2.5), "sweeps: wanted a whole number, at least 0, or None to settle, got 2.5"),
        (lambda: ErrorSweep(sweeps=2.5), "sweeps: wanted a whole number, at least 0, or None to settle, got 2.5"),
        (lambda: BlockDescent(max_sweeps=-1), "max_sweeps: wanted a whole number, at least 0, got -1"),
        (lambda: DescendThenPolish(max_steps=1e3), "max_steps: wanted a whole number, at least 0, got 1000.0"),
        (lambda: DescendThenPolish().limited(-1), "count: wanted a whole number, at least 0, got -1"),
        (lambda: DescendThenPolish().limited(2.5), "count: wanted a whole number, at least 0, got 2.5"),
    ],
)
def test_steps_that_cannot_be_counted_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
