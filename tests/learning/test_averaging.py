"""An average over repetitions is the mean of the estimates that its keys would have given one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import Averaged, EquilibriumPropagation, PhaseCost, fit
from substrates import OscillatorNetwork

NET = OscillatorNetwork.all_to_all(
    4, coupling=-1.0, references={0: 0.0}, inputs=[1], outputs=[3], random_starts=True, field=[0.0, 0.0, 0.3, 0.2]
)
X, Y = jnp.array([[0.4], [-0.7]]), jnp.array([[0.3], [-0.2]])
RULE = EquilibriumPropagation(0.05, cost=PhaseCost())


def test_the_average_is_the_mean_over_the_equilibria_that_the_keys_find():
    key, times = jax.random.key(1), 8
    found = Averaged(RULE, times)(NET, X, Y, key=key)
    # the rule splits its key once per example: a batch of one with that key is a repetition by itself
    phases = found.equilibria[0].state.reshape(2, times, 2)
    assert len(np.unique(np.round(np.cos(phases[0]), 6), axis=0)) > 1  # several equilibria
    outputs = jax.vmap(NET.read)(found.equilibria[0].state, jnp.repeat(X, times, axis=0))
    costs = jax.vmap(PhaseCost())(outputs, jnp.repeat(Y, times, axis=0))
    np.testing.assert_allclose(found.cost, jnp.mean(costs), rtol=1e-12)
    np.testing.assert_array_equal(found.output, outputs[::times])
    assert found.relaxations == 3 * times
    singles = [
        NET.contrast(*(e.state[k][None] for e in found.equilibria[1:]), X[k // times][None]).coupling.weight / 0.1
        for k in range(2 * times)
    ]
    np.testing.assert_allclose(found.gradient.coupling.weight, np.mean(singles, axis=0), atol=1e-12)


def test_averages_train_and_repeat():
    run = lambda: fit(
        NET,
        Averaged(RULE, 2),
        (X, Y),
        optimiser=optax.adam(0.05),
        epochs=15,
        batch_size=2,
        key=jax.random.key(0),
        strict=False,
        progress=False,
    )
    first = run()
    assert first.history["cost"][-3:].mean() < 0.5 * first.history["cost"][:3].mean()
    np.testing.assert_array_equal(first.substrate.coupling.weight, run().substrate.coupling.weight)


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="repetitions: wanted a positive integer, got 0"):
        Averaged(RULE, 0)
    with pytest.raises(ValueError, match="key: without a key every repetition would be the same"):
        Averaged(RULE)(NET, X, Y)
