"""A small network as one matrix: what acts on all its phases at once, and how it changes as they turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from substrates.nudge import Nudge

MOST_COLOURS = 8
"""With more classes of phases that are not joined to one another than this, all turn at once."""


def balance(
    z: Any,
    felt: Any,
    harmonic: Float[Array, "n"] | None,
) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
    """What arrows z = (c, s) turn to where they feel others, along them and across, and the curvature of the energy.

    -1/2 K cos 2 phi is -K cos^2 phi or, for K < 0, -|K| sin^2 phi: concave in the arrow, and taken by its tangent.
    """
    (c, s), (felt_c, felt_s) = z, felt
    along, across = c * felt_c + s * felt_s, c * felt_s - s * felt_c
    if harmonic is None:
        return along, across, along
    bent = harmonic * (c**2 - s**2)
    return along + jnp.abs(harmonic) + bent, across - 2 * harmonic * (c * s), along + 2 * bent


class Look(NamedTuple):
    """What acts at some phases: the total energy up to a constant, the torques, their derivatives, and the sizes of
    what a nudge brings.
    """

    energy: Float[Array, ""]
    torque: Float[Array, "n"]
    hessian: Float[Array, "n n"]
    brought: Float[Array, "n"]


class Whole(eqx.Module):
    """The phases that settle, and what the rest of a small network exerts on them.

    Attributes:
        coupling: W between them, symmetric.
        along, across: h e^(i psi), and what clamped phases exert, as its two parts.
        harmonic, frequency: K and omega of each, or None.
        colour: the class of each, which turns at once; `colours` is how many there are.
        shown: which of them each output shows, a matrix of zeros and ones.
        sine: whether the outputs show sines.
        complete: whether nothing that is clamped has an energy of its own.
    """

    coupling: Float[Array, "n n"]
    along: Float[Array, "n"]
    across: Float[Array, "n"]
    harmonic: Float[Array, "n"] | None
    frequency: Float[Array, "n"] | None
    colour: Int[Any, "n"]
    colours: Int[Any, ""]
    shown: Float[Any, "outputs n"]
    sine: bool = eqx.field(static=True)
    complete: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        coupling: Float[Array, "n n"],
        source: Float[Array, "2 n"],
        local: Sequence[Float[Array, "n"] | None],
        classes: tuple[Int[Any, "n"], Int[Any, ""]],
        slots: Int[Any, "outputs"],
        readout: str,
        complete: bool,
    ) -> Whole:
        """From the arrows that the rest exerts, K and omega, the classes of phases and how many, and the outputs."""
        shown = (slots[:, None] == np.arange(len(coupling), dtype=np.int32)[None]).astype(coupling.dtype)
        along, across = source
        return cls(coupling, along, across, local[0], local[1], *classes, shown, readout == "sine", complete)

    def felt(self, c: Float[Array, "n"], s: Float[Array, "n"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        """sum_j W_ij z_j + (what the rest exerts), for arrows z = (c, s)."""
        return c @ self.coupling + self.along, s @ self.coupling + self.across

    def at_once(self) -> tuple[Int[Any, "n"], Int[Any, ""], Float[Array, "n"] | float]:
        """The classes that turn at once, how many, and the c_i = sum_j |W_ij| that keep joined ones from raising the
        energy.
        """
        if len(self.coupling) <= MOST_COLOURS or (
            isinstance(self.colours, np.ndarray) and self.colours <= MOST_COLOURS
        ):
            return self.colour, self.colours, 0.0
        many = self.colours > MOST_COLOURS
        shift = jnp.where(many, jnp.sum(jnp.abs(self.coupling), axis=1), 0)
        return jnp.where(many, 0, self.colour), jnp.where(many, 1, self.colours), shift

    def balance(
        self, phi: Float[Array, "n"], nudge: Nudge | None, shift: Float[Array, "n"] | float
    ) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
        """What each phase turns to among the others, along it and across; and the curvature of its energy."""
        c, s = jnp.cos(phi), jnp.sin(phi)
        along, across, curvature = balance((c, s), self.felt(c, s), self.harmonic)
        if nudge is not None:
            out, slope = (self.shown @ s, self.shown @ c) if self.sine else (self.shown @ phi, 1.0)
            pull, curved = _drawn(nudge, out)
            stiffness = jnp.diagonal(curved)
            stiffness = (stiffness * slope**2 + pull * out if self.sine else stiffness) @ self.shown
            along, across, curvature = along + stiffness, across + (pull * slope) @ self.shown, curvature + stiffness
        return along + shift, across, curvature

    def look(self, phi: Float[Array, "n"], nudge: Nudge | None) -> Look:
        """What acts at some phases."""
        c, s = jnp.cos(phi), jnp.sin(phi)
        felt_c, felt_s = self.felt(c, s)
        energy = -0.5 * jnp.sum(c * (felt_c + self.along) + s * (felt_s + self.across))
        torque, stiffness = c * felt_s - s * felt_c, c * felt_c + s * felt_s
        if self.harmonic is not None:
            doubled = 2 * phi
            bent = self.harmonic * jnp.cos(doubled)
            energy -= 0.5 * jnp.sum(bent)
            torque -= self.harmonic * jnp.sin(doubled)
            stiffness += 2 * bent
        if self.frequency is not None:
            energy -= self.frequency @ phi
            torque += self.frequency
        brought = jnp.zeros_like(phi)
        hessian = -self.coupling * jnp.cos(phi[:, None] - phi[None])
        if nudge is not None:
            out, slope = (self.shown @ s, self.shown @ c) if self.sine else (self.shown @ phi, None)
            pull, bent = _drawn(nudge, out)
            size, shown = jnp.abs(pull) + jnp.abs(bent) @ jnp.abs(out), self.shown
            energy += nudge.energy(out)
            if slope is not None:
                stiffness += (pull * out) @ shown
                shown = slope[:, None] * shown
            torque += pull @ shown
            brought = size @ jnp.abs(shown)
            hessian += shown.T @ bent @ shown
        return Look(energy, torque, hessian + np.eye(phi.size, dtype=phi.dtype) * stiffness[None], brought)


def _drawn(nudge: Nudge, output: Float[Array, "outputs"]) -> tuple[Float[Array, "outputs"], Float[Array, "o o"]]:
    """The pull of a nudge and, in one go, its curvature."""
    slope, pull = jax.jacfwd(lambda shown: (nudge.pull(shown),) * 2, has_aux=True)(output)
    return pull, -slope
