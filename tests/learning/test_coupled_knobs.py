"""Coupled learning on the bench: its steps against those in simulation, circuits in ngspice, and what it refuses."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import CoupledKnobs, CoupledLearning, fit
from learning.rule import ConvergenceError
from substrates import HopfieldNetwork, IsingModel, Nudge, Plant, ResistorNetwork, SpiceCircuit, Status, Substrate
from substrates.laboratory.noisy import Noisy
from substrates.laboratory.system import OutputClamp
from substrates.nudge import NudgeRefusedError

EDGES = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4), (2, 5), (3, 5), (4, 5)]
CIRCUIT = ResistorNetwork.from_edges(EDGES, n=6, inputs=[0, 1], outputs=[4, 5], conductance=np.linspace(0.5, 1.3, 9))
X, Y = np.array([[1.0, 0.0], [0.2, 0.9]]), np.array([[0.3, 0.4], [0.6, 0.5]])


def knobs_after(system, rule, x=X, y=Y):
    found = rule.step(system, x, y)
    return np.asarray(system.read().knobs), found


@pytest.mark.parametrize("variant", ["positive", "negative", "centered"])
def test_stiff_knobs_take_the_step_of_coupled_learning(variant):
    rule = CoupledLearning(0.2, variant)
    wanted = rule(CIRCUIT, X, Y)
    knobs, found = knobs_after(Plant(CIRCUIT, 1e-9), CoupledKnobs(rule, 0.1))
    step = (np.asarray(CIRCUIT.conductance) - knobs) / 0.1
    np.testing.assert_allclose(step, wanted.gradient.conductance, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.output, wanted.output, atol=1e-7)
    np.testing.assert_allclose(found.cost, wanted.cost, rtol=1e-6)


def test_copies_take_one_step_together():
    rule = CoupledKnobs(CoupledLearning(0.2), 0.1)
    alone, together = Plant(CIRCUIT, 1e-6), Plant(CIRCUIT, 1e-6, copies=2)
    np.testing.assert_allclose(knobs_after(alone, rule)[0], knobs_after(together, rule)[0], rtol=1e-7)


def test_held_outputs_settle_together_with_the_parameters():
    """The joint minimum of |u - theta|^2 / (2 epsilon) + E over states that show the target."""
    for substrate, size in ((CIRCUIT, 2), (HopfieldNetwork.layered((2, 4, 2), key=jax.random.key(1)), 2)):
        epsilon, target = 0.05, np.full(size, 0.25)
        plant = Plant(substrate, epsilon)
        plant.clamp(X[0])
        plant.settle()
        plant.hold_outputs(target)
        assert plant.settle() == Status.converged
        reading = plant.read()
        np.testing.assert_allclose(reading.outputs, target, atol=1e-8)
        np.testing.assert_allclose(reading.parameters, reading.knobs - epsilon * plant.read_conjugate(), atol=1e-7)
        plant.hold_outputs(None)
        plant.settle()
        assert np.max(np.abs(plant.read().outputs - target)) > 0.01


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="needs ngspice")
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_a_circuit_in_ngspice_takes_the_same_step(epsilon):
    rule = CoupledKnobs(CoupledLearning(0.3, "positive"), 0.1)
    with SpiceCircuit.from_network(CIRCUIT, epsilon=epsilon) as live:
        assert isinstance(live, OutputClamp)
        live.hold_outputs(np.array([0.1, -0.2]))
        live.settle()
        np.testing.assert_allclose(live.read().outputs, [0.1, -0.2], atol=1e-8)
        live.hold_outputs(None)
        knobs, found = knobs_after(live, rule)
    wanted, simulated = knobs_after(Plant(CIRCUIT, epsilon or 1e-9), rule)
    np.testing.assert_allclose(knobs, wanted, atol=1e-6)
    np.testing.assert_allclose(found.output, simulated.output, atol=1e-6)


@pytest.mark.slow
def test_a_circuit_learns(tmp_path):
    net = ResistorNetwork.from_edges(EDGES, n=6, inputs=[0, 1], outputs=[5], conductance=np.ones(9))
    x = np.random.default_rng(0).uniform(size=(12, 2))
    y = 0.75 * x[:, :1] + 0.25 * x[:, 1:]
    plant = Plant(net, 1e-4, copies=4)
    rule = CoupledKnobs(CoupledLearning(0.5), 2.0)
    run = fit(plant, rule, (x, y), epochs=25, key=jax.random.key(0), out=tmp_path / "run", progress=False)
    assert run.history["cost"][-1] < 0.1 * run.history["cost"][0]


class Reluctant(Plant):
    """A plant that does not come to rest where its outputs are held."""

    def settle(self):
        return Status.out_of_steps if self._held is not None else super().settle()


def test_a_failed_step_leaves_the_knobs_where_they_were():
    plant = Reluctant(CIRCUIT, 1e-6)
    before = plant.read().knobs.copy()
    with pytest.raises(ConvergenceError, match="the system did not settle"):
        CoupledKnobs(CoupledLearning(0.2), 0.1).step(plant, X, Y)
    np.testing.assert_array_equal(plant.read().knobs, before)
    found = CoupledKnobs(CoupledLearning(0.2), 0.1, strict=False).step(plant, X, Y)
    assert found.unconverged == 4


class Readout(Substrate):
    weight: jax.Array

    @property
    def input_size(self):
        return 1

    def energy(self, state, x):
        return jnp.sum((state - x) ** 2)

    def initial_state(self, x):
        return jnp.zeros(1)

    def read(self, state, x):
        return self.weight * state


def test_what_cannot_be_held_is_refused():
    rule = CoupledKnobs(CoupledLearning(0.2), 0.1)
    with pytest.raises(TypeError, match=r"wanted a PhysicalSystem with hold_outputs\(target\) and read_conjugate\(\)"):
        rule.step(Noisy(Plant(CIRCUIT, 0.1)), X, Y)
    with pytest.raises(ValueError, match="wanted a multiple of the 4 copies"):
        rule.step(Plant(CIRCUIT, 0.1, copies=4), X, Y)
    spins = IsingModel.from_edges([(0, 1), (1, 2)], coupling=[1.0, 0.5], inputs=[0], outputs=[2]).ensemble(1.0)
    with pytest.raises(NudgeRefusedError, match="cannot be held, only nudged"):
        Plant(spins, 0.1).hold_outputs(np.zeros(1))
    with pytest.raises(NudgeRefusedError, match="reads its outputs through parameters"):
        Plant(Readout(jnp.ones(1)), 0.1).hold_outputs(np.zeros(1))
    plant = Plant(CIRCUIT, 0.1)
    with pytest.raises(ValueError, match=r"target: wanted real numbers of shape \(2,\)"):
        plant.hold_outputs(np.zeros(3))
    plant.nudge(Y[0], 0.1)
    with pytest.raises(ValueError, match="outputs cannot be held while a nudge of beta"):
        plant.hold_outputs(Y[0])
    plant.nudge(None, 0.0)
    plant.hold_outputs(Y[0])
    with pytest.raises(ValueError, match="held outputs cannot be nudged"):
        plant.nudge(Y[0], 0.1)
    for given, error in ((Nudge, TypeError), (0.1, TypeError)):
        with pytest.raises(error, match=r"rule: wanted CoupledLearning\(0.1\), say"):
            CoupledKnobs(given, 0.1)
    with pytest.raises(ValueError, match="learning_rate: wanted a positive number"):
        CoupledKnobs(CoupledLearning(0.2), 0.0)
