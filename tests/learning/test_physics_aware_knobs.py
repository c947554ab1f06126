"""Physics-aware training on the bench against its steps in simulation, on a real circuit too, and what it refuses."""

import shutil

import equinox as eqx
import jax
import numpy as np
import pytest

from learning import Mismatch, PhysicsAware, PhysicsAwareKnobs, fit
from learning.rule import ConvergenceError
from substrates import HopfieldNetwork, Plant, ResistorNetwork, SpiceCircuit
from substrates.laboratory.noisy import Noisy

EDGES = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4), (2, 5), (3, 5), (4, 5)]
CIRCUIT = ResistorNetwork.from_edges(EDGES, n=6, inputs=[0, 1], outputs=[4, 5], conductance=np.linspace(0.5, 1.3, 9))
X, Y = np.array([[1.0, 0.0], [0.2, 0.9]]), np.array([[0.3, 0.4], [0.6, 0.5]])
EXACT = PhysicsAware(Mismatch(0.0))
WANTED = eqx.tree_at(lambda net: net.conductance, CIRCUIT, CIRCUIT.conductance[::-1] ** 3)
REACHED = np.array([WANTED.read(WANTED.relax(x).state, x) for x in X])
"""What the circuit shows with other conductances."""


@pytest.mark.parametrize("size", [0.0, 0.3])
@pytest.mark.parametrize("copies", [None, 2])
def test_stiff_knobs_take_the_step_of_the_rule(size, copies):
    rule = PhysicsAware(Mismatch(size))
    wanted = rule(CIRCUIT, X, Y)
    plant = Plant(CIRCUIT, 1e-9, copies=copies)
    found = PhysicsAwareKnobs(rule, 0.1, model=CIRCUIT).step(plant, X, Y)
    step = (np.asarray(CIRCUIT.conductance) - plant.read().knobs) / 0.1
    np.testing.assert_allclose(step, wanted.gradient.conductance, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.output, wanted.output, atol=1e-7)
    np.testing.assert_allclose(found.cost, wanted.cost, rtol=1e-6)


def test_the_model_starts_from_the_parameters_that_are_read_back_not_its_own():
    elsewhere = eqx.tree_at(lambda net: net.conductance, CIRCUIT, 3.0 * CIRCUIT.conductance)
    steps = []
    for model in (CIRCUIT, elsewhere):
        plant = Plant(CIRCUIT, 1e-9)
        PhysicsAwareKnobs(EXACT, 0.1, model=model).step(plant, X, Y)
        steps.append(plant.read().knobs)
    np.testing.assert_allclose(*steps, rtol=1e-12)


def test_a_noisy_system_learns_by_a_model_that_is_off_by_a_tenth():
    system = Noisy(Plant(CIRCUIT, 1e-3), output_noise=1e-3, parameter_noise=1e-3)
    rule = PhysicsAwareKnobs(PhysicsAware(Mismatch(0.1)), 10.0, model=CIRCUIT)
    costs = [float(rule.step(system, X, REACHED).cost) for _ in range(40)]
    assert np.mean(costs[-5:]) < 0.02 * costs[0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ngspice") is None, reason="wants ngspice")
def test_a_circuit_in_ngspice_learns():
    rule = PhysicsAwareKnobs(EXACT, 10.0, model=CIRCUIT)
    with SpiceCircuit.from_network(CIRCUIT, epsilon=1e-3) as system:
        costs = [float(rule.step(system, X, REACHED).cost) for _ in range(40)]
    assert costs[-1] < 0.02 * costs[0]


def test_fit_trains_a_plant():
    rule = PhysicsAwareKnobs(EXACT, 10.0, model=CIRCUIT)
    run = fit(Plant(CIRCUIT, 1e-3), rule, (X, REACHED), epochs=20, batch_size=2, key=jax.random.key(0), progress=False)
    assert run.history["cost"][-1] < 0.1 * run.history["cost"][0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="rule: wanted PhysicsAware"):
        PhysicsAwareKnobs(CIRCUIT, 0.1, model=CIRCUIT)
    with pytest.raises(TypeError, match="model: wanted a Substrate, got ndarray"):
        PhysicsAwareKnobs(EXACT, 0.1, model=X)
    with pytest.raises(ValueError, match="learning_rate: wanted"):
        PhysicsAwareKnobs(EXACT, -0.1, model=CIRCUIT)
    other = HopfieldNetwork.layered((2, 3, 2), key=jax.random.key(0))
    wide = HopfieldNetwork.layered((2, 3, 3), key=jax.random.key(0))
    plant = Plant(CIRCUIT, 1e-6)
    with pytest.raises(ValueError, match=r"model: wanted one trainable parameter for each of the 9 .* got 17"):
        PhysicsAwareKnobs(EXACT, 0.1, model=other).step(plant, X, Y)
    with pytest.raises(ValueError, match="twin: wanted a model with outputs of shape"):
        PhysicsAwareKnobs(PhysicsAware(lambda net: wide), 0.1, model=CIRCUIT).step(plant, X, Y)
    before = plant.read().knobs
    broken = lambda net: eqx.tree_at(lambda n: n.conductance, net, 0 * net.conductance)
    with pytest.raises(ConvergenceError, match="the model has no equilibrium"):
        PhysicsAwareKnobs(PhysicsAware(broken), 0.1, model=CIRCUIT).step(plant, X, Y)
    np.testing.assert_array_equal(plant.read().knobs, before)
