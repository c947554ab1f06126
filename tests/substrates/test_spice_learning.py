import os
import signal

import jax
import numpy as np
import pytest
from spice_circuits import needs_ngspice

from learning import AgnosticEP, fit
from substrates import SpiceCircuit, Status

BEND = (
    "t\nV1 a 0 0\nV2 c 0 0\nR1 a b 1k\nR2 b c 2k\nR3 b 0 3k\nR4 a d 4k\nR5 d b 5k\nD1 d 0 m\n.model m D(IS=1n N=1.5)\n"
)
X, Y = np.array([2.0, -1.0]), np.array([0.5, 0.2])


def bend(epsilon):
    return SpiceCircuit.from_netlist(BEND, inputs=["a", "c"], outputs=["b", "d"], epsilon=epsilon, floor=1e-7)


@pytest.fixture(scope="module")
def slopes():
    """(conductances, gradient of the cost) by finite differences of the circuit itself, its conductances hard."""
    with bend(0.0) as live:
        live.clamp(X)
        g = live.read().knobs

        def loss(knobs):
            live.set_knobs(knobs)
            assert live.settle() == Status.converged
            return np.sum((live.read().outputs - Y) ** 2) / 2

        return g, np.array([(loss(g + h) - loss(g - h)) / (2 * h.sum()) for h in 1e-4 * np.diag(g)])


def step_of(epsilon, beta, variant, g):
    """The step of agnostic EP from conductances g, over epsilon beta."""
    with bend(epsilon) as live:
        rule = AgnosticEP(beta=beta, variant=variant)
        held = rule.homeostat.hold(live, g, 1e-12)
        assert held.settled
        found = rule.step(live, X[None], Y[None])
        assert not found.unconverged
        return (live.read().parameters - g) / (epsilon * beta)


@needs_ngspice
@pytest.mark.parametrize("variant", ["optimistic", "pessimistic", "centered"])
def test_the_circuit_steps_down_the_gradient(slopes, variant):
    """-epsilon (b2 - b1) dL/dtheta, by read-backs alone; what is left shrinks with epsilon and beta."""
    g, gradient = slopes
    errors = [
        np.linalg.norm(step_of(epsilon, beta, variant, g) + gradient) / np.linalg.norm(gradient)
        for epsilon, beta in ((2e-6, 1e-5), (2e-7, 1e-6))
    ]
    assert errors[1] < 0.02
    assert errors[1] < errors[0]


@needs_ngspice
def test_training_goes_on_when_ngspice_is_killed_in_the_middle():
    """The cost falls all the same, as it does undisturbed."""
    data = np.stack([X, -X]), np.stack([Y, -Y])
    costs = []
    for kills in (False, True):
        with bend(1e-6) as live:
            settle, count = live.settle, 0

            def disturbed(live=live, settle=settle):
                nonlocal count
                count += 1
                if count % 10 == 0:
                    os.kill(live.pid, signal.SIGKILL)
                return settle()

            if kills:
                live.settle = disturbed
            run = fit(live, AgnosticEP(beta=5e-4), data, epochs=8, key=jax.random.key(0), progress=False)
            costs.append(run.history["cost"])
            assert not np.any(run.history["unconverged"])
    np.testing.assert_allclose(costs[1], costs[0], rtol=1e-6)
    assert costs[0][-1] < costs[0][0]
