"""Batches on a CPU: large factorisations go in turn, small ones at once, and either gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from substrates.solvers.batching import if_any, in_turn, only_where, spectra_in_turn

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
