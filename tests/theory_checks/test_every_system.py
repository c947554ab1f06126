"""The conformance kit on every public system, each kind of constructor once."""

import jax
import jax.numpy as jnp
import pytest
from every_system import SYSTEMS, input_size

from learning import SquaredError
from theory_checks import check_substrate

SYSTEMS_THAT_SETTLE = [name for name in SYSTEMS if name != "sampled spins"]
"""The others, which draw samples, obey in the mean: see test_ising_ensembles."""


def overlap(output, target):
    return -jnp.sum(output * target)


COSTS = {"spins at a temperature": overlap}
"""Nudges act in every configuration of an ensemble, so that only linear costs are those of what is read."""


@pytest.mark.parametrize("name", SYSTEMS_THAT_SETTLE)
def test_it_obeys_the_laws_of_the_contract(name):
    net = SYSTEMS[name]()
    size = input_size(net)
    x = 0.5 * jax.random.uniform(jax.random.key(1), (2, size), minval=-1.0)
    x = jnp.sign(x) if "spins" in name and "quantum" not in name else x
    free = jax.vmap(lambda x: net.read(net.relax(x, key=jax.random.key(0)).state, x))(x)
    report = check_substrate(net, x, 0.9 * free + 0.05, cost=COSTS.get(name, SquaredError()))
    report.raise_if_failed()
    verdicts = {law.name: law.verdict for law in report.laws}
    assert verdicts["discrete = said"] == "holds"
    assert net.discrete or verdicts["pins = said"] == verdicts["holomorphic = said"] == "holds"
