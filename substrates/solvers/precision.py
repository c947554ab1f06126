"""optimistix's solvers in the dtype of the state: its own buffers take JAX's default dtype, whatever the state has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optimistix as optx


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
