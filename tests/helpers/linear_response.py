"""A system whose optimum is known in closed form: its outputs are linear in its inputs."""

import jax.numpy as jnp
from jaxtyping import Array

from substrates import Nudge, Status, Substrate, fixed
from substrates.solvers.solver import judge, tolerance

PLUGIN = f"{__file__}:LinearResponse"
"""The class as the command's user names it."""


class LinearResponse(Substrate):
    """Masses on springs, E = 1/2 |s|^2 - s . (W x + b): they settle at W x + b."""

    weight: Array
    offset: Array
    weak_point: Array = fixed(default_factory=lambda: jnp.asarray(jnp.inf))
    """Inputs whose first entry exceeds it do not settle."""

    contrast_points = 1

    def energy(self, state, x):
        return 0.5 * jnp.sum(state**2) - state @ (self.weight @ x + self.offset)

    def initial_state(self, x):
        return jnp.zeros_like(self.offset)

    def read(self, state, x):
        return state

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        state = self.weight @ x + self.offset
        if isinstance(nudge, Nudge):
            stiffness = nudge.stiffness(state)
            state = (state + stiffness * state + nudge.pull(state)) / (1 + stiffness)
        found = judge(self, state, x, nudge, 1, tolerance(self, state, x, nudge))
        status = Status.where(x[0] > self.weak_point, Status.out_of_steps, found.status)
        return type(found)(found.state, found.energy, found.residual, found.steps, status)

    @classmethod
    def for_task(cls, n_inputs, n_outputs, *, sizes=None, key):
        if sizes is not None:
            raise ValueError(f"sizes: LinearResponse has no hidden layers, got {sizes}")
        dtype = jnp.zeros(()).dtype
        return cls(jnp.zeros((n_outputs, n_inputs), dtype), jnp.zeros(n_outputs, dtype), jnp.asarray(jnp.inf, dtype))

    def training_defaults(self):
        return {
            "beta": 0.5,
            "epochs": 3,
            "batch_size": 16,
            "optimiser": "sgd",
            "learning_rate": {"weight": 0.02, "offset": 0.02},
        }
