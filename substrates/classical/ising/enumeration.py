"""The exact ground state, by looking at every configuration."""

from __future__ import annotations

import functools
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
        scale = substrate.force_scale(start, x)
        rounding = 16 * jnp.finfo(flat.dtype).eps * jnp.sum(ravel_pytree(scale)[0])

        def block(number):
            if not high_spins:
                return low
            bits = (number >> jnp.arange(high_spins, dtype=jnp.int32)) & 1
            high = jnp.broadcast_to((2 * bits - 1).astype(flat.dtype), (low.shape[0], high_spins))
            return jnp.concatenate([low, high], axis=1)

        def search(first, measure):
            """The spins with the lowest of what is measured with what rounding may make of it, of those that rounding
            does not tell apart the ones with the fewest flips, lower than what it begins with: (that, flips, spins),
            and whether rounding left several.
            """

            def look(number, carry):
                best, tied = carry
                spins = block(number)
                values, off = jax.vmap(measure)(spins)
                moved = jnp.sum(jnp.abs(spins - flat[None]), axis=1)
                table = jnp.concatenate([values[:, None], moved[:, None], off[:, None], spins], axis=1)
                row = lambda index: table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
                least = row(jnp.argmin(values))
                near = values <= least[0] + least[2]
                new = row(jnp.argmin(jnp.where(near, moved, jnp.inf)))
                tie = jnp.abs(new[0] - best[0]) <= new[2]
                better = jnp.where(tie, new[1] < best[1], new[0] < best[0])
                tied = tie | jnp.where(better, jnp.sum(near) > 1, tied)
                return jnp.where(better, new, best), tied

            return jax.lax.fori_loop(0, 2**high_spins, look, (first, jnp.asarray(False)))

        beginning = lambda value, spins: jnp.concatenate([np.asarray(value, flat.dtype), spins])
        everywhere = lambda s: (self._energy(substrate, unravel(s), x, nudge), rounding)
        best, tied = search(beginning([np.inf, np.inf, 0], jnp.ones_like(flat)), everywhere)

        def below(reference, s):
            change, off = substrate.energy_change(unravel(reference), unravel(s), x, nudge)
            allowed = jnp.isfinite(change) & (change < -off) & self._held(substrate, unravel(s), x, nudge)
            return jnp.where(allowed, change, 0), off

        def again(carry):
            best, _, looks = carry
            found, _ = search(beginning([0, 0, 0], best), functools.partial(below, best))
            return found[3:], found[0] < 0, looks + 1

        going = lambda carry: carry[1] & (carry[2] < flat.size)
        best, _, _ = jax.lax.while_loop(going, again, (best[3:], tied, 0))
        state = unravel(best)
        limit = tolerance(substrate, state, x, nudge, scale=scale)
        return judge(substrate, state, x, nudge, 2**flat.size, limit)

    def _energy(self, substrate: Spins, state: PyTree, x: PyTree, nudge: Nudge | Pin | None) -> Float[Array, ""]:
        energy = substrate.total_energy(state, x, nudge)
        return jnp.where(self._held(substrate, state, x, nudge), energy, jnp.inf) if isinstance(nudge, Pin) else energy

    def _held(self, substrate: Spins, state: PyTree, x: PyTree, nudge: Nudge | Pin | None) -> Any:
        """Whether the outputs are where a pin wants them."""
        if not isinstance(nudge, Pin):
            return True
        low, high = substrate.levels
        return jnp.all(jnp.abs(substrate.read(state, x) - nudge.target) < 1e-3 * (high - low))


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
