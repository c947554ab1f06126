"""Networks of quantum oscillators fit for a data set."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates.quantum.oscillator.build import network_from_edges
from substrates.quantum.oscillator.network import QuantumOscillatorNetwork

TRAINING_DEFAULTS: dict[str, Any] = {
    "beta": 0.1,
    "cost": "cross-entropy",
    "epochs": 60,
    "batch_size": 16,
    "optimiser": "adam",
    "learning_rate": 0.02,
    "decay": 0.95,
    "bench": {
        "epsilon": {"stiffness": 2e-5, "onsite_stiffness": 2e-5, "bias_force": 2e-3},
        "beta": 60.0,
        "epochs": 150,
        "cost": "cross-entropy",
    },
}


def task_network(
    n_inputs: int, n_outputs: int, sizes: tuple[int, ...] | None, key: PRNGKeyArray
) -> QuantumOscillatorNetwork:
    """Inputs as forces on their own oscillators, joined by springs of either sign to all the others; outputs are means.

    The answer is linear: softmax regression by displacements with the cross-entropy, which is the default; with the
    squared error linear regression, which masks a class between two others. Hidden oscillators (`sizes`, by default
    none) add springs and no nonlinearity. `drive="stiffness"` would be nonlinear, at the price of one eigenvalue
    problem per example.
    """
    hidden, softest = sum(sizes or ()), 0.2
    n = n_inputs + hidden + n_outputs
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if j >= n_inputs]
    draw = jax.random.uniform(key, (len(pairs),), minval=-0.5, maxval=0.5) / math.sqrt(n)
    pushed = np.zeros(n)
    for (i, j), k in zip(pairs, np.asarray(draw, float), strict=True):
        pushed[[i, j]] += 2 * max(-k, 0.0)
    return network_from_edges(
        pairs,
        n,
        inputs=range(n_inputs),
        outputs=range(n - n_outputs, n),
        stiffness=draw,
        onsite_stiffness=jnp.asarray(np.maximum(1.0, softest + pushed), draw.dtype),
        bias_force=jnp.zeros(n, draw.dtype),
        mass=1.0,
        drive="force",
        reading="mean",
        hbar=1.0,
        temperature=0.0,
        gain=10.0,
        stiffness_floor=-math.inf,
        onsite_floor=softest,
    )
