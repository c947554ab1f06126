"""The elements of a circuit that follow a law of their own."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates.substrate import fixed
from substrates.wiring import with_leading_axes

GROUND = -1
"""The node at 0 volts, which every element may use."""


class Shockley(eqx.Module):
    """A real diode: i = Is (exp(v / Ve) - 1), with v = v_anode - v_cathode.

    Attributes:
        saturation_current: Is, amperes; one number, or one per diode.
        emission_voltage: Ve = emission coefficient times thermal voltage, volts; 25.85 mV at 300 K and coefficient 1.

    Source: Shockley 1949, "The theory of p-n junctions in semiconductors and p-n junction transistors".
    """

    saturation_current: Float[Array, "..."] = fixed(converter=jnp.asarray, default=1e-14)
    emission_voltage: Float[Array, "..."] = fixed(converter=jnp.asarray, default=0.02585)

    def current(self, drop: Inexact[Array, "diodes"]) -> Inexact[Array, "diodes"]:
        """i = Is (exp(v / Ve) - 1), amperes."""
        return self.saturation_current * jnp.expm1(drop / self.emission_voltage)

    def conductance(self, drop: Inexact[Array, "diodes"]) -> Inexact[Array, "diodes"]:
        """di/dv = (Is / Ve) exp(v / Ve), siemens."""
        return self.saturation_current / self.emission_voltage * jnp.exp(drop / self.emission_voltage)

    def content(self, drop: Inexact[Array, "diodes"]) -> Inexact[Array, "diodes"]:
        """The co-content, the integral of i over v: Is (Ve exp(v / Ve) - v - Ve), watts."""
        return self.saturation_current * self.emission_voltage * _exp_above_tangent(drop / self.emission_voltage)


def _exp_above_tangent(z: Inexact[Array, "diodes"]) -> Inexact[Array, "diodes"]:
    """exp(z) - 1 - z, by its series where the difference would lose digits."""
    orders = with_leading_axes(np.arange(3.0, 12.0, dtype=z.real.dtype), z.ndim + 1)
    series = 1 + jnp.sum(jnp.cumprod(z[..., None] / orders, axis=-1), axis=-1)
    return jnp.where(jnp.abs(z) < 0.1, z**2 / 2 * series, jnp.expm1(z) - z)
