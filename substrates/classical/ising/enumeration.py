"""The exact ground state, by looking at every configuration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.ising.spins import Spins
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance

MOST_SPINS = 24

MOST_SPINS_UNASKED = 12
"""So many free spins are enumerated where no solver is asked for."""

_BLOCK = 12


class Enumeration(Solver):
    """The configuration of lowest total energy of all 2^n, for up to 24 free spins; any cost, no key.

    Among configurations of equal energy it takes the one with the fewest flips from the start. Where rounding leaves
    others as low, it looks again at what each changes of the lowest, so that weak couplings decide what strong ones do
    not. Configurations are looked at in blocks of 4096.
    """

    def __call__(
        self, substrate: Spins, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        flat, unravel = ravel_pytree(start)
        check_size("solver", flat.size, MOST_SPINS)
        low = configurations(min(flat.size, _BLOCK), flat.dtype)
        high_spins = flat.size - low.shape[1]

        def block(number):
            bits = (number >> jnp.arange(high_spins, dtype=jnp.int32)) & 1
            high = jnp.broadcast_to((2 * bits - 1).astype(flat.dtype), (low.shape[0], high_spins))
            return jnp.concatenate([low, high], axis=1)

        scale = jnp.sum(ravel_pytree(substrate.force_scale(start, x))[0])
        rounding = 16 * jnp.finfo(flat.dtype).eps * scale

        def look(number, carry):
            best, lowest, flips, tied = carry
            spins = block(number)
            energies = jax.vmap(lambda s: self._energy(substrate, unravel(s), x, nudge))(spins)
            near = energies <= jnp.min(energies) + rounding
            moved = jnp.sum(jnp.abs(spins - flat), axis=1)
            index = jnp.argmin(jnp.where(near, moved, jnp.inf))
            tie = jnp.abs(energies[index] - lowest) <= rounding
            better = jnp.where(tie, moved[index] < flips, energies[index] < lowest)
            choose = lambda new, old: jnp.where(better, new, old)
            tied = jnp.where(tie, True, choose(jnp.sum(near) > 1, tied))
            return choose(spins[index], best), choose(energies[index], lowest), choose(moved[index], flips), tied

        infinity = jnp.asarray(jnp.inf, flat.dtype)
        first = (jnp.ones_like(flat), infinity, infinity, jnp.asarray(False))
        best, _, _, tied = jax.lax.fori_loop(0, 2**high_spins, look, first)

        def compare(number, carry):
            reference, best, lowest, flips = carry
            spins = block(number)

            def below(s):
                change, rounding = substrate.energy_change(unravel(reference), unravel(s), x, nudge)
                allowed = jnp.isfinite(self._energy(substrate, unravel(s), x, nudge))
                return jnp.where(allowed & (change < -rounding), change, 0), rounding

            change, rounding = jax.vmap(below)(spins)
            least = jnp.argmin(change)
            near = change <= change[least] + rounding[least]
            moved = jnp.sum(jnp.abs(spins - flat), axis=1)
            index = jnp.argmin(jnp.where(near, moved, jnp.inf))
            tie = jnp.abs(change[index] - lowest) <= rounding[index]
            better = (change[index] < 0) & jnp.where(tie, moved[index] < flips, change[index] < lowest)
            choose = lambda new, old: jnp.where(better, new, old)
            return reference, choose(spins[index], best), choose(change[index], lowest), choose(moved[index], flips)

        def again(carry):
            best, _, looks = carry
            zero = jnp.zeros((), flat.dtype)
            _, found, change, _ = jax.lax.fori_loop(0, 2**high_spins, compare, (best, best, zero, infinity))
            return found, change < 0, looks + 1

        best, _, _ = jax.lax.while_loop(lambda carry: carry[1] & (carry[2] < flat.size), again, (best, tied, 0))
        state = unravel(best)
        return judge(substrate, state, x, nudge, 2**flat.size, tolerance(substrate, state, x, nudge))

    def _energy(self, substrate: Spins, state: PyTree, x: PyTree, nudge: Nudge | Pin | None) -> Float[Array, ""]:
        energy = substrate.total_energy(state, x, nudge)
        if isinstance(nudge, Pin):
            low, high = substrate.levels
            held = jnp.abs(substrate.read(state, x) - nudge.target) < 1e-3 * (high - low)
            return jnp.where(jnp.all(held), energy, jnp.inf)
        return energy


def configurations(n: int, dtype: Any) -> Float[Array, "configurations n"]:
    """All 2^n configurations of n spins, the first spin changing fastest."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return jnp.asarray(2 * bits - 1, dtype)


def check_size(name: str, size: int, most: int) -> None:
    """Refuses to enumerate too many spins."""
    if size > most:
        raise ValueError(
            f"{name}: wanted at most {most} free spins to enumerate, got {size} (2^{size} configurations); anneal or "
            "sample instead"
        )
