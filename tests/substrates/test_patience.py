"""Waiting: slow systems end where quick ones do, and restless ones are told apart."""

import dataclasses

import numpy as np
import pytest
from black_boxes import SpringScale
from hypothesis import given
from hypothesis import strategies as st

from substrates import Noisy, Patience, PhysicalSystem, Status


class Slow(SpringScale):
    """The scale, whose meters go only a part of the way to where it ends at each settle, and creep on."""

    def __init__(self, rate, creep=0.0):
        super().__init__([0.4, -0.7, 1.1], k=1.3)
        self.rate, self.creep = rate, creep
        self.shown = np.concatenate([[self.s], self.theta])

    def settle(self):
        status = super().settle()
        ends = np.concatenate([[self.s], self.theta])
        self.shown = self.shown + self.rate * (ends - self.shown)
        self.shown[0] += self.creep
        return status

    def read(self):
        return dataclasses.replace(super().read(), outputs=self.shown[:1].copy(), parameters=self.shown[1:].copy())


def pushed(system):
    system.set_knobs(np.array([0.5, 0.1, -0.3]))
    system.clamp(np.array([1.0, 0.5, -0.5]))
    return system.settle(), system.read()


@given(st.floats(0.05, 1.0))
def test_a_slow_system_ends_where_a_quick_one_does(rate):
    patient = Patience(Slow(rate), tolerance=1e-4, most=1000)
    assert isinstance(patient, PhysicalSystem)
    status, found = pushed(patient)
    _, wanted = pushed(SpringScale([0.4, -0.7, 1.1], k=1.3))
    assert status == Status.converged
    np.testing.assert_allclose(found.outputs, wanted.outputs, atol=1.01e-4)
    np.testing.assert_allclose(found.parameters, wanted.parameters, atol=1.01e-4)
    assert patient.waits <= 3 + np.log(1e-5) / np.log(1 - min(rate, 0.99))


def test_a_system_that_does_not_come_to_rest_is_reported_with_its_drift():
    patient = Patience(Slow(0.5, creep=0.02), tolerance=1e-3, most=40)
    patient._system.rate = 0.0
    status, _ = pushed(patient)
    assert status == Status.out_of_steps
    assert patient.waits == 40
    np.testing.assert_allclose(patient.drift, 0.02, rtol=1e-9)


def test_meters_that_flicker_are_no_motion():
    patient = Patience(Noisy(Slow(0.5), output_noise=0.01, seed=2), tolerance=1e-3, most=60)
    status, found = pushed(patient)
    _, wanted = pushed(SpringScale([0.4, -0.7, 1.1], k=1.3))
    assert status == Status.converged
    np.testing.assert_allclose(found.outputs, wanted.outputs, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tolerance=0.0), "tolerance: wanted"),
        (dict(tolerance=1.0, parameter_tolerance=-1.0), "parameter_tolerance: wanted"),
        (dict(tolerance=1.0, most=1), "most: wanted"),
    ],
)
def test_impossible_patience_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Patience(Slow(0.5), **options)
