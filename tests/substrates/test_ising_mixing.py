"""Samples that have not mixed are not used: split R-hat against numpy, and chains against the exact ensemble."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f as fisher

from learning import EquilibriumPropagation, SquaredError
from learning.rule import ConvergenceError
from substrates import IsingModel, Nudge, Status
from substrates.classical.ising.mixing import HalfChains

NOTHING = jnp.zeros(0)


def ring(coupling=1.3, field=0.2, n=8):
    return IsingModel.lattice((n,), coupling=coupling, field=field, periodic=True, outputs=[0])


def at(system, temperature):
    return eqx.tree_at(lambda s: s.temperature, system, jnp.asarray(temperature))


@eqx.filter_jit
def usable_and_means(system, keys):
    """Whether each run is usable, and the means of its chains, shape (runs, chains, spins)."""

    def one(key):
        found = system.relax(NOTHING, key=key)
        return found.usable, jnp.mean(found.state, axis=0)

    return jax.lax.map(one, keys, batch_size=25)


def exact_means(net, temperature):
    s = np.array(list(itertools.product([-1.0, 1.0], repeat=net.size)))
    energy = np.asarray(jax.vmap(lambda s: net.energy(s, NOTHING))(jnp.asarray(s)))
    weight = np.exp(-(energy - energy.min()) / temperature)
    return weight @ s / weight.sum()


def watched(looks):
    """`HalfChains` of numbers of shape (looks, chains, kinds)."""
    count, chains, kinds = looks.shape
    halves = HalfChains.empty(chains, kinds, count // 2, looks.dtype)
    for index, values in enumerate(looks):
        halves = halves.seen(jnp.asarray(index - count % 2), values)
    return halves


def ratio(looks):
    """B/W of the halves of chains, shape (looks, chains)."""
    n = len(looks) // 2
    halves = np.concatenate([looks[-2 * n : -n], looks[-n:]], axis=1)
    return n * halves.mean(axis=0).var(ddof=1) / halves.var(axis=0, ddof=1).mean()


@pytest.mark.parametrize("count", [16, 17, 200])
def test_chains_are_judged_by_split_rhat(count):
    """Shifting half of the chains more and more, the verdict changes where B/W passes the documented bound."""
    n = count // 2
    noise = 1000 + np.random.default_rng(count).normal(size=(count, 6))
    if count % 2:
        noise[0] = 1e9  # the odd look is the first, and not counted
    most = max(1 + n * (1.05**2 - 1), 2 * fisher.isf(0.5e-3, 11, 12 * (n - 1)))
    shifts = [noise + shift * (np.arange(6) < 3) for shift in np.linspace(0, 4, 11)]
    wanted = [ratio(looks) <= most for looks in shifts]
    assert [bool(watched(jnp.asarray(looks)[:, :, None]).mixed(1)) for looks in shifts] == wanted
    assert wanted[0]
    assert not wanted[-1]


@pytest.mark.parametrize("shift", [2.0, 8.0])
def test_numbers_taken_together_are_pooled(shift):
    looks = np.random.default_rng(0).normal(size=(16, 4, 40))
    looks[:, :2, 1:5] += shift
    halves = np.concatenate([looks[:8], looks[8:]], axis=1)[:, :, 1:]
    pooled = 8 * halves.mean(axis=0).var(axis=0, ddof=1).sum() / halves.var(axis=0, ddof=1).mean(axis=0).sum()
    single = max(ratio(looks[:, :, kind]) for kind in range(1, 40))
    most = 2 * fisher.isf(0.5e-3, 7, 8 * 7)
    assert single > most
    assert bool(watched(jnp.asarray(looks)).mixed(1)) == (pooled <= most) == (shift == 2.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frozen_chains_have_mixed_only_where_they_agree(dtype):
    still = np.full((16, 8, 3), -1234.567, dtype)
    assert bool(watched(jnp.asarray(still)).mixed(2))
    for kind in range(3):
        apart = still.copy()
        apart[:, 5, kind] *= 1.001
        assert not bool(watched(jnp.asarray(apart)).mixed(2))


def test_what_tells_nothing_has_not_mixed():
    assert not bool(watched(jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 1)))).mixed(1))
    assert not bool(watched(jnp.ones((16, 1, 1))).mixed(1))
    assert bool(watched(jnp.asarray(np.random.default_rng(0).normal(size=(16, 1, 1)))).mixed(1))


def test_large_numbers_do_not_cancel_in_float32():
    noise = np.random.default_rng(1).normal(size=(32, 8, 1))
    assert bool(watched(jnp.asarray(1e4 + 0.05 * noise, jnp.float32)).mixed(1))
    assert not bool(watched(jnp.asarray(1e4 + 0.05 * (noise + 9 * np.eye(8)[:, :1]), jnp.float32)).mixed(1))


def test_a_cold_ring_says_that_it_has_not_mixed_and_clusters_mix_it():
    net, temperature = ring(), 0.5
    transfer = np.exp(np.array([[1.3 + 0.2, -1.3], [-1.3, 1.3 - 0.2]]) / temperature)
    power = np.linalg.matrix_power(transfer, 8)
    wanted = (power[0, 0] - power[1, 1]) / np.trace(power)
    assert wanted == pytest.approx(0.9966, abs=1e-4)
    frozen = net.sampled(temperature).relax(NOTHING)
    assert frozen.status == Status.out_of_steps
    assert "had not mixed" in str(frozen)
    system = net.sampled(temperature, update="clusters")
    found = system.relax(NOTHING)
    assert found.status == Status.truncated
    shown = np.asarray(found.state)[:, :, 0]
    assert abs(shown.mean() - wanted) < 5 * shown.mean(axis=0).std(ddof=1) / 4 + 5 * math.sqrt((1 - wanted**2) / 256)


@pytest.mark.parametrize(
    ("temperature", "options"),
    [
        (4.0, {}),
        (0.5, {"update": "clusters"}),
        (4.0, {"chains": 2, "draws": 50}),
        (4.0, {"chains": 1, "draws": 32}),
        (4.0, {"chains": 64, "draws": 1}),
    ],
)
def test_mixed_chains_are_not_refused(temperature, options):
    usable, _ = usable_and_means(ring().sampled(temperature, **options), jax.random.split(jax.random.key(1), 400))
    assert np.mean(usable) >= 0.99


@pytest.mark.parametrize(
    ("net", "temperature", "options"),
    [
        (ring(), 0.3, {}),
        (ring(), 0.3, {"chains": 4, "draws": 4}),
        (ring(field=0.0), 0.3, {"update": "metropolis", "chains": 2, "draws": 100}),
        (ring(coupling=-1.3), 0.2, {"chains": 8, "draws": 1}),
        (ring(field=0.0), 0.2, {"chains": 1, "draws": 32}),
        (IsingModel.lattice((4, 4), coupling=-1.0), 0.2, {"draws": 200, "thinning": 1}),
    ],
)
def test_frozen_chains_are_never_usable(net, temperature, options):
    usable, _ = usable_and_means(net.sampled(temperature, **options), jax.random.split(jax.random.key(2), 100))
    assert not np.any(usable)


@functools.cache
def nets(kind):
    shape, periodic = ((6,), True) if kind == "ring" else ((3, 3), False)
    return IsingModel.lattice(shape, periodic=periodic, outputs=[0]).sampled(1.0)


@given(
    kind=st.sampled_from(["ring", "lattice"]),
    seed=st.integers(0, 2**31 - 1),
    temperature=st.floats(0.2, 4.0),
    signs=st.sampled_from([0.0, 1.0, -1.0]),
)
def test_what_is_usable_has_the_means_of_the_exact_ensemble(kind, seed, temperature, signs):
    draw = np.random.default_rng(seed)
    size = nets(kind).model.coupling.weight.size
    weight = draw.normal(size=size)
    weight = weight if signs == 0 else signs * np.abs(weight)
    where = lambda s: (s.model.coupling.weight, s.model.field)
    arrays = (jnp.asarray(weight), jnp.asarray(0.5 * draw.normal(size=nets(kind).model.n)))
    system = at(eqx.tree_at(where, nets(kind), arrays), temperature)
    usable, means = usable_and_means(system, jax.random.split(jax.random.key(seed), 25))
    wanted = exact_means(system.model, temperature)
    error = means.std(axis=1, ddof=1) / 4
    # 16 chains that agree may all have missed a rare state, and show no spread: that of 16 draws is added
    unseen = 3 * np.sqrt((1 - wanted**2) / 16)
    off = np.abs(np.asarray(means.mean(axis=1)) - np.asarray(wanted)) - 5 * np.asarray(error)
    assert np.all((off <= unseen) | ~np.asarray(usable)[:, None])
    if np.all(usable):
        runs = np.asarray(means.mean(axis=1))
        assert np.all(np.abs(runs.mean(axis=0) - wanted) <= runs.std(axis=0, ddof=1) + 0.02)


def test_a_rule_refuses_samples_that_have_not_mixed():
    system = ring().sampled(0.3, draws=8)
    x, y, rule = jnp.zeros((1, 0)), jnp.ones((1, 1)), EquilibriumPropagation(0.1)
    key = jax.random.key(0)
    with pytest.raises(ConvergenceError, match="had not mixed"):
        rule(system, x, y, key=key)
    estimate = EquilibriumPropagation(0.1, strict=False)(system, x, y, key=key)
    assert int(estimate.unusable) == 3


def test_a_nudged_phase_goes_on_and_is_judged_like_the_free_one():
    system, key = ring(field=0.0).sampled(0.3, draws=8), jax.random.key(0)
    free = system.relax(NOTHING, key=key)
    nudged = system.relax(NOTHING, Nudge(SquaredError(), jnp.ones(1), 1e-3), free.state, key=key)
    assert nudged.status == Status.out_of_steps
    np.testing.assert_array_equal(nudged.state[:, :, 0].mean(axis=0), free.state[-1, :, 0])
    warm = at(system, 4.0)
    assert warm.relax(NOTHING, start=free.state, key=key).status == Status.truncated
