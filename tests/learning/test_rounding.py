"""Learning with products in bfloat16: gradients against 64 bits, what is refused, runs that resume and are loaded."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import (
    ContinualEP,
    EquilibriumPropagation,
    ImplicitGradient,
    Rounding,
    RoundingError,
    check_bfloat16,
    fit,
    load_run,
)
from substrates import HopfieldNetwork, PredictiveCodingNetwork, ResistorNetwork, in_bfloat16

X = jax.random.uniform(jax.random.key(1), (12, 9), jnp.float32)
Y = jnp.arange(12) % 4
SIZES = (9, 20, 12, 4)
NETWORKS = {
    "hopfield": (HopfieldNetwork.layered(SIZES, key=jax.random.key(0), dtype=jnp.float32), 0.5),
    "predictive coding": (
        PredictiveCodingNetwork.dense(SIZES, key=jax.random.key(0), gain=2.0, dtype=jnp.float32),
        0.1,
    ),
    "resistors": (ResistorNetwork.layered(SIZES, key=jax.random.key(0), dtype=jnp.float32), 0.1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_that_of_64_bits(name):
    net, beta = NETWORKS[name]
    rule = EquilibriumPropagation(beta)
    found = check_bfloat16(in_bfloat16(net), rule, X, Y)
    assert found.safe
    assert found.equilibria == 3 * len(X)
    exact = rule(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net), X.astype(jnp.float64), Y)
    rounded = rule(in_bfloat16(net), X, Y)
    both = zip(*(jax.tree.leaves(each.gradient) for each in (rounded, exact)), strict=True)
    pairs = [(np.asarray(one, np.float64), np.asarray(other)) for one, other in both if other.size]
    cosines = [np.sum(g * e) / np.linalg.norm(g) / np.linalg.norm(e) for g, e in pairs]
    np.testing.assert_allclose(min(found.cosine.values()), min(cosines), atol=1e-6)
    assert min(cosines) > 0.9999
    assert f"at least {min(cosines):.6f}" in str(found)


def test_a_nudge_that_drowns_in_rounding_is_refused_with_the_numbers():
    net, _ = NETWORKS["hopfield"]
    with pytest.raises(RoundingError, match=r"cosine with that of 64 bits is at least -?0\.\d+ .* a stronger nudge"):
        check_bfloat16(in_bfloat16(net), EquilibriumPropagation(1e-7), X, Y)


def test_equilibria_that_do_not_settle_are_refused_whatever_the_rule_says():
    net, _ = NETWORKS["hopfield"]
    hurried = in_bfloat16(dataclasses.replace(net, solver=dataclasses.replace(net.solver, max_sweeps=2)))
    for strict in (True, False):
        with pytest.raises(
            RoundingError, match=r"bfloat16: 36 equilibria, \d+ did not settle, .* do not settle in 64 bits either"
        ):
            check_bfloat16(hurried, EquilibriumPropagation(0.5, strict=strict), X, Y)


def test_what_cannot_be_compared_is_named():
    net, _ = NETWORKS["hopfield"]
    with pytest.raises(
        ValueError, match=r"substrate: wanted one that multiplies in bfloat16, .* in_bfloat16\(substrate\)"
    ):
        check_bfloat16(net, EquilibriumPropagation(0.5), X, Y)
    with pytest.raises(TypeError, match="rule: wanted an Estimator, which gives a gradient, got ContinualEP"):
        check_bfloat16(in_bfloat16(net), ContinualEP(0.5, learning_rate=0.1, steps=5), X, Y)


def test_the_worst_parameter_decides():
    cosine = {"good": 1.0, "bad": 0.98}
    assert not Rounding(cosine, 0, 0, 3, 1e-6).safe
    assert Rounding(cosine, 0, 0, 3, 1e-6).worst == "bad"
    assert "a stronger nudge" in Rounding(cosine, 0, 0, 3, 1e-6).advice
    assert Rounding({"good": 0.991}, 0, 0, 3, 1e-6).safe
    assert not Rounding({"good": 1.0}, 1, 0, 3, 1e-6).safe
    assert "Settle in 32 bits" in Rounding({"good": 1.0}, 1, 0, 3, 1e-6).advice
    assert "a weaker nudge" in Rounding({"good": 1.0}, 2, 1, 3, 1e-6).advice


def test_derivatives_are_those_of_the_system_itself():
    net, _ = NETWORKS["predictive coding"]
    exact, rounded = (ImplicitGradient()(each, X, Y).gradient for each in (net, in_bfloat16(net)))
    for one, other in zip(*map(jax.tree.leaves, (rounded, exact)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * float(jnp.max(jnp.abs(other))))


@pytest.mark.parametrize("name", NETWORKS)
def test_runs_resume_bit_for_bit_and_are_loaded_as_they_were(name, tmp_path):
    net, beta = NETWORKS[name]
    given = (in_bfloat16(net), EquilibriumPropagation(beta), (X, Y))
    how = {"optimiser": optax.sgd(0.01), "key": jax.random.key(2), "batch_size": 4, "progress": False}
    whole = fit(*given, epochs=4, **how)
    fit(*given, epochs=2, out=tmp_path / "run", **how)
    resumed = fit(*given, epochs=4, out=tmp_path / "run", resume=True, **how)
    for one, other in zip(*map(jax.tree.leaves, (resumed.substrate, whole.substrate)), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded = load_run(tmp_path / "run")
    assert loaded.substrate.solver == resumed.substrate.solver
    assert loaded.substrate.solver.mixed
    np.testing.assert_array_equal(loaded.predict(X).outputs, resumed.predict(X).outputs)


def test_what_is_trained_so_is_what_is_trained_in_full():
    net, beta = NETWORKS["hopfield"]
    how = {"optimiser": optax.sgd(0.05), "key": jax.random.key(2), "batch_size": 4, "epochs": 5, "progress": False}
    full, rounded = (fit(each, EquilibriumPropagation(beta), (X, Y), **how) for each in (net, in_bfloat16(net)))
    assert rounded.history["unconverged"].sum() == 0
    np.testing.assert_allclose(rounded.history["cost"], full.history["cost"], rtol=1e-3)
    assert not eqx.tree_equal(rounded.substrate.coupling, full.substrate.coupling)
