"""Thermal ensembles of spins, sampled by Markov chains."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.ising.clusters import Clusters
from substrates.classical.ising.ensemble import ThermalEnsemble, checked_temperature
from substrates.classical.ising.mixing import HalfChains
from substrates.classical.ising.spins import Spins
from substrates.classical.ising.sweeps import DRAW, check_counts, sweep_words
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status

Update = Literal["heat bath", "metropolis", "clusters"]


class MarkovChains(Solver):
    """Independent chains at one temperature: sweeps that are thrown away, then configurations that are kept.

    Without a start a single chain begins at random, and many begin far apart: of every four, two at random, one with
    all spins up and one with all down. A start is gone on from, where its last configurations end.

    The chains are watched over the second half of the run, or while configurations are kept if that is longer: the
    energy, the magnetisation, every output, and all spins together. Where these tell one half of a chain from another
    half or another chain (see `HalfChains.mixed`) the samples have not mixed, and the status is `out_of_steps`: take
    more `burn_in` and `thinning`, `update="clusters"`, or a higher temperature. Otherwise it is `truncated`. One chain
    of one draw, which nothing can be said of, is `truncated` too.

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
        check_counts(self, chains=1, draws=1, burn_in=0, thinning=1)
        if self.update not in get_args(Update):
            raise ValueError(f"update: wanted one of {get_args(Update)}, got {self.update!r}")

    def __call__(
        self, substrate: SampledEnsemble, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        key = jax.random.key(0) if key is None else key
        kernel = substrate.model.sweeps(x, nudge)
        inverse = jnp.broadcast_to(1 / substrate.temperature, (self.chains,))
        updates = {"heat bath": kernel.heat_bath, "metropolis": kernel.metropolis}
        update = Clusters(kernel).update if self.update == "clusters" else updates[self.update]

        def sweeps(spins: PyTree, first: Any, count: int) -> PyTree:
            one = lambda t, spins: update(spins, inverse, sweep_words(key, first + t))
            return jax.lax.fori_loop(0, count, one, spins)

        total = self.burn_in + self.draws * self.thinning
        single = self.chains * self.draws == 1
        looks = 1 if single else max(self.draws, total // (2 * self.thinning))
        earlier, odd = looks - self.draws, looks % 2

        def advance(number: Array, carry: tuple) -> tuple:
            spins, kept, halves = carry
            spins = sweeps(spins, self.burn_in + number * self.thinning, self.thinning)
            states = kernel.states(spins)
            # what is seen before the first draw is written over by it
            kept = jax.tree.map(lambda all_, new: all_.at[jnp.maximum(number, 0)].set(new), kept, states)
            if not single:
                halves = halves.seen(number + earlier - odd, jax.vmap(lambda s: substrate.watched(s, x, nudge))(states))
            return spins, kept, halves

        last = jax.tree.map(lambda leaf: _apart(leaf[-1]), start)
        spins = kernel.load(last, sweep_words(key, DRAW))
        spins = sweeps(spins, 0, self.burn_in - earlier * self.thinning)
        alone = 2 + jax.eval_shape(substrate.read, start, x).size
        halves = HalfChains.empty(self.chains, alone + substrate.model.size, looks // 2, kernel.dtype)
        _, state, halves = jax.lax.fori_loop(-earlier, self.draws, advance, (spins, start, halves))
        residual, energy = substrate.residual(state, x, nudge), substrate.total_energy(state, x, nudge)
        mixed = True if single else halves.mixed(alone)
        status = Status.where(mixed, Status.truncated, Status.out_of_steps)
        status = Status.where(jnp.isfinite(energy), status, Status.not_finite)
        return Equilibrium(state, energy, residual, jnp.asarray(total, jnp.int32), status)


def _apart(spins: Float[Array, "chains ..."]) -> Float[Array, "chains ..."]:
    """Undecided spins (0) up in the last chain but one of every four, and down in the last; others are drawn."""
    chains = spins.shape[0]
    if chains == 1:
        return spins
    last = jnp.arange(chains)[::-1].reshape(-1, *(1,) * (spins.ndim - 1)) % 4
    ends = jnp.where(last == 1, 1, jnp.where(last == 0, -1, 0)).astype(spins.dtype)
    return jnp.where(spins == 0, ends, spins)


class SampledEnsemble(ThermalEnsemble):
    """Spins at a temperature T, by samples: the state is configurations of the model, shape (draws, chains, ...).

    Energy, reading and measurement are means over the samples (the free energy itself is not seen by samples, but its
    derivatives are). A nudge acts on every configuration, as on an annealer: what is descended is the mean cost over
    configurations; see `BoltzmannEnsemble`. Relaxations are truncated by request; samples that have not mixed are
    `out_of_steps`, which rules refuse (see `MarkovChains`). The residual is statistical: the
    standard error over chains of the mean energy per spin, or the drift of that mean between the halves of the run if
    it is larger; 0 for a single chain of one draw, which nothing can be said of.

    Attributes:
        sampling: the chains.
    """

    discrete: ClassVar[bool] = True

    sampling: MarkovChains = eqx.field(static=True, default=MarkovChains())

    @property
    def solver(self) -> MarkovChains:  # type: ignore[override]
        return self.sampling

    def total_energy(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        return jnp.mean(self.of_each(lambda s: self.model.total_energy(s, x, nudge), state))

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

    def watched(self, spins: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, "kinds"]:
        """What tells whether chains have mixed: energy per spin, magnetisation, outputs, and every spin."""
        flat = ravel_pytree(spins)[0]
        energy = self.model.total_energy(spins, x, nudge) / self.model.size
        return jnp.concatenate([jnp.stack([energy, jnp.mean(flat)]), self.model.read(spins, x), flat])

    def of_each(self, function: Any, state: PyTree) -> Array:
        """A function of every configuration, with leading axes (draws, chains)."""
        return jax.vmap(jax.vmap(function))(state)


def sampled_ensemble(model: Spins, temperature: Any, **options: Any) -> SampledEnsemble:
    """A thermal ensemble of a model, sampled by Markov chains.

    Args:
        model: the spins.
        temperature: positive, in units of energy.
        options: `chains`, `draws`, `burn_in`, `thinning` and `update`, see `MarkovChains`.

    Raises:
        ValueError: for a temperature that is not positive, and numbers that make no sense.
    """
    sampling = MarkovChains(**options)
    return SampledEnsemble(model, checked_temperature(temperature, model), sampling)
