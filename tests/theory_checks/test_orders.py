"""Orders fitted to errors: they are told from noise, however an error happens to be small by chance."""

import math

import numpy as np
import pytest

from theory_checks.orders import fit_order, order_law

BETAS = [2.0**-k for k in range(13)]
SEEDS = range(200)


def errors(true, seed, noise, numbers=1):
    """|bias + noise| of a gradient of so many numbers: bias 0.1 beta^true with the next power on it, noise n/beta."""
    draw = np.random.default_rng(seed)
    way, aside = draw.normal(size=(2, numbers))
    way, aside = way / np.linalg.norm(way), aside / np.linalg.norm(aside)
    following = 2 * true if true == 2 else true + 1
    found = []
    for beta in BETAS:
        bias = 0.1 * beta**true * way + draw.uniform(0, 0.1) * 0.3 * beta**following * aside
        found.append(float(np.linalg.norm(bias + draw.normal(size=numbers) * noise / beta / math.sqrt(numbers))))
    return found


def verdicts(true, claimed, noise, numbers=1):
    laws = [order_law("order", BETAS, errors(true, seed, noise, numbers), claimed, 1e-6) for seed in SEEDS]
    return {law.verdict for law in laws}


def one_ratio(betas, found, order):
    """The order between the two smallest strengths whose errors exceed 50 times the least error times beta."""
    noise = min(e * b for e, b in zip(found, betas, strict=True))
    clean = [k for k in range(len(betas) - 1) if found[k + 1] > 50 * noise / betas[k + 1]]
    return math.log2(found[clean[-1]] / found[clean[-1] + 1]) if clean else math.nan


@pytest.mark.parametrize("noise", [1e-13, 1e-9, 1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize("order", [1, 2])
def test_a_sound_order_is_never_broken_by_noise(order, noise):
    assert "fails" not in verdicts(order, order, noise)
    if noise <= 1e-7:
        assert verdicts(order, order, noise) == {"holds"}


def test_one_ratio_takes_an_error_that_is_small_by_chance_for_little_noise():
    """With the noise of 32 bits; the fit does not."""
    found = [errors(2, seed, 1e-6) for seed in SEEDS]
    misled = [one for one in found if one_ratio(BETAS, one, 2) < 1.8]
    assert len(misled) > len(SEEDS) / 10
    assert {order_law("order", BETAS, one, 2, 1e-6).verdict for one in misled} <= {"holds", "does not apply"}


@pytest.mark.parametrize("noise", [1e-13, 1e-9, 1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize(("true", "claimed"), [(1, 2), (0, 1), (0, 2)])
def test_an_order_that_is_too_low_is_found(true, claimed, noise):
    assert verdicts(true, claimed, noise) == {"fails"}


def test_the_error_bar_covers_the_order_as_often_as_it_should():
    fits = [fit_order(BETAS, errors(2, seed, 1e-7, numbers=5), 2) for seed in SEEDS]
    misses = [abs(fit.power - 2) / fit.error_bar for fit in fits]
    assert np.mean(np.asarray(misses) < 2) > 0.95
    assert "+-" in str(fits[0])


def test_an_exact_power_is_found_exactly_and_a_lone_outlier_does_not_weigh():
    exact = [0.3 * beta**2 for beta in BETAS]
    fit = fit_order(BETAS, exact, 2)
    assert fit.power == pytest.approx(2, abs=1e-9)
    assert fit.strengths[0] == 1.0


def test_no_bias_and_no_telling_do_not_apply():
    assert order_law("order", BETAS, [1e-9] * 13, 2, 1e-6).verdict == "does not apply"
    noise = [1e-3 / beta for beta in BETAS]
    law = order_law("order", BETAS, noise, 2, 1e-6)
    assert law.verdict == "does not apply"
    assert "check in float64" in law.compared
    assert order_law("order", BETAS, [0.5] * 13, 1, 1e-6).verdict == "fails"
    assert fit_order(BETAS, [math.nan] * 13, 2) is None
