"""The command that draws what asymmetry costs and what homeostasis gives back, at a small size."""

import dataclasses
import itertools

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from benchmark_files import benchmark

from learning import load_data


@pytest.fixture(scope="module")
def command():
    return benchmark("homeostasis")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", seed=0, validation=0.2)


def test_the_bias_splits_into_that_of_the_nudge_and_that_of_asymmetry(command, digits):
    finite, lasting = command.split(digits, hidden=32, seed=0)
    ratios = finite[:, 1] / finite[:, 0]
    np.testing.assert_allclose(ratios, (command.BETAS[1] / command.BETAS[0]) ** 2, rtol=0.05)
    assert lasting[0] < 1e-8  # tied weights
    assert np.all(np.diff(lasting) > 0)


@pytest.mark.slow
def test_four_panels_are_drawn_of_networks_that_homeostasis_makes_symmetric(command, digits, tmp_path):
    small = dataclasses.replace(digits, train=tuple(part[:200] for part in digits.train))
    seen = {name: {} for name in command.NUDGE}
    for name, way in itertools.product(seen, command.WAYS):
        seen[name][way] = command.trained(small, name, way, 100.0, hidden=6, epochs=3, seed=0)
    for name, trainings in seen.items():
        plain, penalised = (trainings[way].symmetry for way in command.WAYS[1:])
        assert plain[0] == penalised[0], name  # the same start
        assert penalised[-1] > max(plain[-1], penalised[0]), name
    file = tmp_path / "panels.png"
    command.draw(str(file), command.split(small, hidden=6, seed=0), seen)
    assert matplotlib.image.imread(file).std() > 0.05
    assert not plt.get_fignums()
