"""Thermal ensembles of spins, sampled by Markov chains."""

from __future__ import annotations

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.ising.annealing import DRAW
from substrates.classical.ising.clusters import Clusters
from substrates.classical.ising.counter import sweep_words
from substrates.classical.ising.ensemble import checked_temperature
from substrates.classical.ising.model import IsingModel
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status
from substrates.substrate import Substrate, fixed

Update = Literal["heat bath", "metropolis", "clusters"]


class MarkovChains(Solver):
    """Independent chains at one temperature: sweeps that are thrown away, then configurations that are kept.

    Without a start every chain begins at random; a start is gone on from, where its last configurations end.

    Attributes:
        chains: how many chains run side by side.
        draws: how many configurations of each are kept.
        burn_in: sweeps before the first that is kept.
        thinning: sweeps from one that is kept to the next.
        update: what a sweep is: "heat bath" (Glauber dynamics, whose runs with the same key stay together under a
            nudge: common random numbers), "metropolis", or "clusters" (Swendsen and Wang, for graphs; it does not slow
            down near a ferromagnet's critical temperature).
    """

    chains: int = 16
    draws: int = 16
    burn_in: int = 100
    thinning: int = 2
    update: Update = eqx.field(static=True, default="heat bath")

    def __check_init__(self):
        for name, least in (("chains", 1), ("draws", 1), ("burn_in", 0), ("thinning", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: wanted a whole number, at least {least}, got {value}")
        if self.update not in get_args(Update):
            raise ValueError(f"update: wanted one of {get_args(Update)}, got {self.update!r}")

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            raise ValueError("nudge: wanted a Nudge or None, got a Pin; an ensemble is not held at single outputs")
        key = jax.random.key(0) if key is None else key
        kernel = substrate.model.sweeps(x, nudge)
        inverse = jnp.broadcast_to(1 / substrate.temperature, (self.chains,))
        updates = {"heat bath": kernel.heat_bath, "metropolis": kernel.metropolis}
        update = Clusters(kernel).update if self.update == "clusters" else updates[self.update]

        def sweeps(spins: PyTree, first: Any, count: int) -> PyTree:
            one = lambda t, spins: update(spins, inverse, sweep_words(key, first + t))
            return jax.lax.fori_loop(0, count, one, spins)

        def draw(spins: PyTree, number: Array) -> tuple[PyTree, PyTree]:
            spins = sweeps(spins, self.burn_in + number * self.thinning, self.thinning)
            return spins, kernel.states(spins)

        last = jax.tree.map(lambda leaf: leaf[-1], start)
        spins = sweeps(kernel.load(last, sweep_words(key, DRAW)), 0, self.burn_in)
        _, state = jax.lax.scan(draw, spins, jnp.arange(self.draws))
        residual, energy = substrate.residual(state, x, nudge), substrate.total_energy(state, x, nudge)
        status = Status.where(jnp.isfinite(energy), Status.truncated, Status.not_finite)
        steps = jnp.asarray(self.burn_in + self.draws * self.thinning, jnp.int32)
        return Equilibrium(state, energy, residual, steps, status)


class SampledEnsemble(Substrate):
    """Spins at a temperature T, by samples: the state is configurations of the model, shape (draws, chains, ...).

    Energy, reading and measurement are means over the samples (the free energy itself is not seen by samples, but its
    derivatives are). A nudge acts on every configuration, as on an annealer: what is descended is the mean cost over
    configurations; see `BoltzmannEnsemble`. Relaxations are truncated by request. The residual is statistical: the
    standard error over chains of the mean energy per spin, or the drift of that mean between the halves of the run if
    it is larger; 0 for a single chain of one draw, which nothing can be said of.

    Attributes:
        model: the spins, trainable.
        temperature: T, in units of energy.
        sampling: the chains.
    """

    contrast_points = 0

    model: IsingModel
    temperature: Float[Array, ""] = fixed()
    sampling: MarkovChains = eqx.field(static=True, default=MarkovChains())

    @property
    def solver(self) -> MarkovChains:  # type: ignore[override]
        return self.sampling

    def total_energy(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        return jnp.mean(self.of_each(lambda s: self.model.total_energy(s, x, nudge), state))

    def energy(self, state: PyTree, x: PyTree) -> Float[Array, ""]:
        return self.total_energy(state, x)

    def initial_state(self, x: PyTree) -> PyTree:
        shape = (self.sampling.draws, self.sampling.chains)
        return jax.tree.map(lambda s: jnp.zeros((*shape, *s.shape), s.dtype), self.model.initial_state(x))

    def read(self, state: PyTree, x: PyTree) -> Float[Array, "outputs"]:
        return jnp.mean(self.of_each(lambda s: self.model.read(s, x), state), axis=(0, 1))

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        energies = self.of_each(lambda s: self.model.total_energy(s, x, nudge), state) / self.model.size
        draws, chains = energies.shape
        half = draws // 2
        drift = jnp.abs(jnp.mean(energies[:half]) - jnp.mean(energies[draws - half :])) if half else jnp.zeros(())
        error = jnp.std(jnp.mean(energies, axis=0), ddof=1) / chains**0.5 if chains > 1 else jnp.zeros(())
        return jnp.maximum(drift.astype(energies.dtype), error.astype(energies.dtype))

    def force_scale(self, state: PyTree, x: PyTree) -> Float[Array, ""]:
        return self.temperature

    def constrained(self) -> SampledEnsemble:
        return eqx.tree_at(lambda e: e.model, self, self.model.constrained())

    def of_each(self, function: Any, state: PyTree) -> Array:
        """A function of every configuration, with leading axes (draws, chains)."""
        return jax.vmap(jax.vmap(function))(state)


def sampled_ensemble(
    model: IsingModel,
    temperature: Any,
    *,
    chains: int = 16,
    draws: int = 16,
    burn_in: int = 100,
    thinning: int = 2,
    update: Update = "heat bath",
) -> SampledEnsemble:
    """A thermal ensemble of a model, sampled.

    Args:
        model: the spins.
        temperature: positive, in units of energy.
        chains, draws, burn_in, thinning, update: see `MarkovChains`.

    Raises:
        ValueError: for a temperature that is not positive, and numbers that make no sense.
    """
    sampling = MarkovChains(chains, draws, burn_in, thinning, update)
    return SampledEnsemble(model, checked_temperature(temperature, model), sampling)
