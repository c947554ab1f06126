"""optimistix's solvers in the dtype of the state: its own buffers take JAX's default dtype, whatever the state has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Int


class LBFGS(optx.AbstractLBFGS):
    """Limited-memory BFGS with backtracking line search, as `optimistix.LBFGS`."""

    rtol: float
    atol: float
    norm: Callable = optx.max_norm
    use_inverse: bool = True
    descent: Any = eqx.field(default_factory=optx.NewtonDescent)
    search: Any = eqx.field(default_factory=lambda: InDtype(optx.BacktrackingArmijo()))
    history_length: int = 10
    verbose: Callable = lambda **_: None

    def init_hessian(self, y, f, grad):
        with jax.enable_x64(y.dtype.itemsize == 8):
            return optx.AbstractLBFGS.init_hessian(self, y, f, grad)

    def update_hessian(self, y, y_eval, f_info, f_eval_info, hessian_update_state):
        with jax.enable_x64(y.dtype.itemsize == 8):
            return optx.AbstractLBFGS.update_hessian(self, y, y_eval, f_info, f_eval_info, hessian_update_state)


class InDtype(optx.AbstractSearch):
    """A search whose numbers take the dtype of the state."""

    inner: optx.AbstractSearch

    def init(self, y, f_info_struct):
        cast = lambda leaf: leaf.astype(y.dtype) if eqx.is_inexact_array(leaf) else leaf
        return jax.tree.map(cast, self.inner.init(y, f_info_struct))

    def step(self, first_step, y, y_eval, f_info, f_eval_info, state):
        return self.inner.step(first_step, y, y_eval, f_info, f_eval_info, state)


class AtMost(optx.AbstractMinimiser):
    """A minimiser that ends after so many steps, a run-time number, which optimistix wants to know beforehand."""

    inner: LBFGS
    most: Int[Array, ""]
    rtol: float
    atol: float
    norm: Callable = optx.max_norm

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return self.inner.init(fn, y, args, options, f_struct, aux_struct, tags), jnp.zeros((), jnp.int32)

    def step(self, fn, y, args, options, state, tags):
        y, inner, aux = self.inner.step(fn, y, args, options, state[0], tags)
        return y, (inner, state[1] + 1), aux

    def terminate(self, fn, y, args, options, state, tags):
        ended, result = self.inner.terminate(fn, y, args, options, state[0], tags)
        return ended | (state[1] >= self.most), result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return self.inner.postprocess(fn, y, aux, args, options, state[0], tags, result)
