"""The exact thermal ensemble of spins: every configuration with its Boltzmann weight."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.ising.enumeration import check_size, configurations
from substrates.classical.ising.spins import Spins
from substrates.nudge import Nudge, Pin, batch_axes
from substrates.solvers.solver import Equilibrium, Solver, everywhere, judge, tolerance
from substrates.substrate import Substrate, fixed, parameter_dtype, split_parameters

MOST_SPINS = 20
_AT_ONCE = 4096


class ThermalEnsemble(Substrate):
    """Spins at a temperature T: the state is a distribution over their configurations, or samples of it.

    Attributes:
        model: the spins, trainable.
        temperature: T, in units of energy.
    """

    contrast_points: ClassVar[int] = 0
    holomorphic: ClassVar[bool] = False
    pins: ClassVar[bool] = False

    model: Spins
    temperature: Float[Array, ""] = fixed()

    @property
    def input_size(self) -> int | None:
        return self.model.input_size

    def energy(self, state: PyTree, x: PyTree) -> Float[Array, ""]:
        return self.total_energy(state, x)

    def constrained(self) -> Self:
        return eqx.tree_at(lambda ensemble: ensemble.model, self, self.model.constrained())


class BoltzmannWeights(Solver):
    """The closed form: log p(s) = -F(s)/T - log Z."""

    def __call__(
        self,
        substrate: BoltzmannEnsemble,
        x: PyTree,
        nudge: Nudge | None,
        start: PyTree,
        key: PRNGKeyArray | None,
    ) -> Equilibrium:
        state = jax.nn.log_softmax(-substrate.levels(x, nudge) / substrate.temperature)
        return judge(substrate, state, x, nudge, 1, tolerance(substrate, state, x, nudge))


class BoltzmannEnsemble(ThermalEnsemble):
    """Spins at a temperature T: the state is the distribution p over all configurations of the free spins.

    The energy is the free energy A[p] = sum_s p(s) (E(s) + T log p(s)), least at p(s) = exp(-E(s)/T)/Z, where it is
    -T log Z. The state holds log p, shape (2^n,); away from equilibrium p = softmax(state), and T/2 (log sum exp
    state)^2 is added, which draws the state to its norm and changes no equilibrium. What is read is the mean of the
    outputs. A nudge acts on every configuration, as on an annealer: F[p] = A[p] + beta <C>, with <C> the mean of the
    cost over configurations. For costs that are linear in the outputs, the squared error of single spins (up to a
    constant) among them, that is the cost of the mean output; for others the mean cost is what is descended. Then

        d<C>/dtheta = d/dbeta <dE/dtheta>_beta = -(1/T) Cov(C, dE/dtheta).

    At any finite beta <dE/dtheta>_beta - <dE/dtheta>_0 is the gradient of A(beta) - A(0), where A(beta) is the least
    F[p], and beta times `EquilibriumPropagation(beta, "positive")`. `FluctuationResponse` gives the covariance. Both
    are about <C>; `ImplicitGradient` is the gradient of the cost of the mean output.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, the stochastic version of the theorem; arXiv 2511.22024 (2025),
    for finite beta.
    """

    distribution: ClassVar[bool] = True
    solver: ClassVar[Any] = BoltzmannWeights()

    def configurations(self) -> Float[Array, "configurations free"]:
        """All configurations of the free spins, each flattened as the state of the model, the first spin fastest."""
        return configurations(self.model.size, self.temperature.dtype)

    def levels(self, x: Float[Array, "inputs"], nudge: Nudge | None = None) -> Float[Array, "configurations"]:
        """The total energy F = E + beta C of each configuration."""
        return self._of_each(lambda s: self.model.total_energy(s, x, nudge), x)

    def total_energy(self, state: Float[Array, "configurations"], x: PyTree, nudge: Nudge | Pin | None = None):
        norm = jax.nn.logsumexp(state)
        log_p = state - norm
        levels = self.levels(x, nudge if isinstance(nudge, Nudge) else None)
        return jnp.sum(jnp.exp(log_p) * (levels + self.temperature * log_p)) + 0.5 * self.temperature * norm**2

    def total_force(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        """-dF/dstate: the nudge acts in every configuration, so that F is no function of what is read."""
        return jax.tree.map(jnp.negative, jax.grad(self.total_energy)(state, x, nudge))

    def initial_state(self, x: PyTree) -> Float[Array, "configurations"]:
        self.model.initial_state(x)
        return jnp.zeros(2**self.model.size, self.temperature.dtype)

    def read(self, state: Float[Array, "configurations"], x: PyTree) -> Float[Array, "outputs"]:
        shown = self._of_each(lambda s: self.model.read(s, x), x)
        return jax.nn.softmax(state) @ shown

    def covariance(self, states: PyTree, xs: PyTree, nudges: Nudge) -> tuple[Float[Array, ""], Self]:
        def spread(state: Array, x: PyTree, nudge: Nudge) -> tuple[Array, Array]:
            p = jax.nn.softmax(state)
            costs = self._of_each(lambda s: nudge.energy(self.model.read(s, x)), x)
            mean = p @ costs
            return mean, p * (costs - mean)

        means, weights = jax.vmap(spread, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)
        parameters, rest = split_parameters(self)
        weighted = lambda parameters, weight, x: weight @ eqx.combine(parameters, rest).levels(x)
        mean_weighted = lambda parameters: jnp.mean(jax.vmap(lambda w, x: weighted(parameters, w, x))(weights, xs))
        return jnp.mean(means), jax.grad(mean_weighted)(parameters)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """The temperature and the spread of the levels."""
        return everywhere(self.temperature + jnp.std(self.levels(x)), state)

    def _of_each(self, function: Any, x: PyTree) -> Array:
        unravel = ravel_pytree(self.model.initial_state(x))[1]
        each = lambda s: function(unravel(s))
        spins = self.configurations()
        if spins.shape[0] <= _AT_ONCE:
            return jax.vmap(each)(spins)
        return jax.lax.map(each, spins, batch_size=_AT_ONCE)


def boltzmann_ensemble(model: Spins, temperature: Any) -> BoltzmannEnsemble:
    """The exact thermal ensemble of a model, by enumeration; up to 20 free spins.

    Raises:
        ValueError: for more spins, and a temperature that is not positive.
    """
    check_size("model", model.size, MOST_SPINS)
    return BoltzmannEnsemble(model, checked_temperature(temperature, model))


def checked_temperature(temperature: Any, model: Spins) -> Float[Array, ""]:
    """A positive number in the dtype of the model."""
    if not isinstance(temperature, Tracer) and not (
        np.ndim(temperature) == 0 and 0 < float(temperature) < float("inf")
    ):
        raise ValueError(
            f"temperature: wanted a positive number, in units of the couplings, got {temperature}; at zero the ground "
            "state is what the model's own relax finds"
        )
    return jnp.asarray(temperature, parameter_dtype(model))
