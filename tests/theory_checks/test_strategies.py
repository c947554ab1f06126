"""The strategies draw systems that settle and obey the laws that they are drawn to test."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from substrates.substrate import relax_batch
from theory_checks import check_substrate
from theory_checks.strategies import convex_springs, examples, resistor_circuits


@given(convex_springs(), examples())
def test_springs_are_convex_and_settle(system, batch):
    x, _ = batch
    found = relax_batch(system, x)
    assert bool(jnp.all(found.converged))
    hessian = jax.hessian(lambda s: system.energy(s, x[0]))(found.state[0])
    assert np.linalg.eigvalsh(hessian)[0] > 0


@given(resistor_circuits(), examples(inputs=2))
def test_circuits_settle_within_their_inputs(system, batch):
    x, _ = batch
    found = relax_batch(system, x)
    assert bool(jnp.all(found.converged))
    voltages = eqx.filter_jit(jax.vmap(lambda s, v: system.voltages(s, v)))(found.state, x)
    assert bool(jnp.all(voltages <= jnp.max(x, axis=1, keepdims=True) + 1e-9))
    assert bool(jnp.all(voltages >= jnp.min(x, axis=1, keepdims=True) - 1e-9))


@settings(max_examples=5)
@given(resistor_circuits(diodes=2, graph=1), examples(inputs=2))
def test_circuits_with_diodes_settle(system, batch):
    found = relax_batch(system, batch[0])
    assert bool(jnp.all(found.converged))


@pytest.mark.slow
@settings(max_examples=3)
@given(convex_springs(), examples())
def test_springs_pass_the_kit(system, batch):
    check_substrate(system, *batch).raise_if_failed()


def test_circuits_too_small_for_their_terminals_are_refused():
    with pytest.raises(ValueError, match="nodes: wanted at least"):
        resistor_circuits(nodes=3, inputs=2, outputs=2)
