"""Batches on a CPU: large factorisations go in turn, small ones at once, and either gives the same."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from substrates.solvers.batching import if_any, in_turn, only_where, spectra_in_turn
from substrates.solvers.spectra import eigh, singular_values

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices take a batch at once")


@pytest.mark.parametrize(("size", "at_once"), [(4, 64), (20, 12), (80, 1)])
def test_a_batch_is_factorised_as_many_at_a_time_as_need_no_other_thread(size, at_once):
    draw = np.random.default_rng(0).normal(size=(64, size, size))
    matrices = jnp.asarray(draw @ draw.transpose(0, 2, 1) + size * np.eye(size))
    factorise = jax.vmap(in_turn(jnp.linalg.cholesky))
    shape = f"[{size},{size}]" if at_once == 1 else f"[{at_once},{size},{size}]"
    assert f"{shape} = cholesky" in str(jax.make_jaxpr(factorise)(matrices))
    np.testing.assert_allclose(factorise(matrices), np.linalg.cholesky(matrices), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "at_once"), [(4, 64), (19, 2), (80, 1)])
def test_fewer_spectra_go_at_once(size, at_once):
    """Those of 14 matrices of 19 rows waited for each other for ever: the system that `groundstate new` writes."""
    draw = np.random.default_rng(0).normal(size=(64, size, size))
    matrices = jnp.asarray(draw + draw.transpose(0, 2, 1))
    spectra = jax.vmap(spectra_in_turn(jnp.linalg.eigvalsh))
    shape = f"[{size}]" if at_once == 1 else f"[{at_once},{size}]"
    assert f"{shape} = eigh" in str(jax.make_jaxpr(spectra)(matrices))
    np.testing.assert_allclose(spectra(matrices), np.linalg.eigvalsh(matrices), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("named", [False, True])
def test_a_cpu_beside_an_accelerator_takes_them_in_turn_too(monkeypatch, named):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    matrices = jnp.broadcast_to(jnp.eye(80), (64, 80, 80))
    program = lambda: str(jax.make_jaxpr(jax.vmap(in_turn(lambda a: jnp.linalg.cholesky(a))))(matrices))
    assert "[64,80,80] = cholesky" in program()
    with jax.default_device("cpu" if named else jax.devices("cpu")[0]):
        assert "[80,80] = cholesky" in program()


def test_a_stage_runs_only_for_the_examples_that_need_it():
    seen = []

    def stage(x):
        jax.debug.callback(lambda value: seen.append(float(value)), x)
        return 10 * x

    found = jax.jit(jax.vmap(lambda x: only_where(x > 1, stage, x)))(jnp.arange(4.0))
    jax.effects_barrier()
    assert found.tolist() == [0.0, 1.0, 20.0, 30.0]
    assert sorted(seen) == [2.0, 3.0]


@pytest.mark.parametrize(("least", "runs"), [(1.0, 1), (5.0, 0)])
def test_a_stage_runs_for_all_examples_only_if_one_needs_it(least, runs):
    seen = []

    def stage(x, factor):
        jax.debug.callback(lambda values: seen.append(values), factor)
        return factor * x

    found = jax.jit(jax.vmap(lambda x: if_any(x > least, stage, x, jnp.asarray(10.0))))(jnp.arange(4.0))
    jax.effects_barrier()
    assert found.tolist() == [10 * x if x > least else x for x in range(4)]
    assert len(seen) in (runs, 4 * runs)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (6, 2)])
def test_spectra_of_a_batch_have_derivatives_of_both_modes(shape):
    """Against LAPACK through numpy, and differences of it."""
    draw = np.random.default_rng(3)
    batch, way = draw.normal(size=(7, *shape)), draw.normal(size=(7, *shape))
    weight = jnp.asarray(draw.normal(size=min(shape)))
    cost = lambda matrices: jnp.sum(jax.vmap(singular_values)(matrices) @ weight)
    reference = lambda matrices: np.sum(np.linalg.svd(matrices, compute_uv=False) @ np.asarray(weight))
    np.testing.assert_allclose(cost(jnp.asarray(batch)), reference(batch), rtol=1e-12)
    wanted = (reference(batch + 1e-6 * way) - reference(batch - 1e-6 * way)) / 2e-6
    np.testing.assert_allclose(np.sum(jax.grad(cost)(jnp.asarray(batch)) * way), wanted, rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(cost, (jnp.asarray(batch),), (jnp.asarray(way),))[1], wanted, rtol=1e-7)


def test_eigenvectors_of_a_batch_have_derivatives_of_both_modes():
    draw = np.random.default_rng(4)
    batch, way = (matrices + matrices.swapaxes(1, 2) for matrices in draw.normal(size=(2, 5, 4, 4)))
    image = lambda values, vectors: (vectors * (values**3)[..., None, :]) @ vectors.swapaxes(-1, -2)
    weight = draw.normal(size=(5, 4, 4))
    cost = lambda matrices: jnp.sum(image(*jax.vmap(eigh)(matrices)) * weight)
    cube = lambda matrices: np.sum(np.linalg.matrix_power(matrices, 3) * weight)
    np.testing.assert_allclose(cost(jnp.asarray(batch)), cube(batch), rtol=1e-11)
    wanted = (cube(batch + 1e-5 * way) - cube(batch - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose(np.sum(jax.grad(cost)(jnp.asarray(batch)) * way), wanted, rtol=1e-7)


def test_few_spectra_go_at_once_where_derivatives_are_taken_too():
    matrices = jnp.tile(jnp.diag(jnp.arange(20.0)), (500, 1, 1))
    both = lambda matrices: (jax.vmap(eigh)(matrices), jax.vmap(singular_values)(matrices))
    program = str(jax.make_jaxpr(lambda m: jax.jvp(both, (m,), (m,)))(matrices))
    assert not re.search(r"\[500,20(,20)?\][^=\n]*= (eigh|svd)", program)
    assert re.search("= (eigh|svd)", program)
