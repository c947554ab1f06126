"""What a state of an elastic network under a nudge tells: energy, forces, what they are small against, curvature."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates.classical.elastic.springs import SpringNetwork, Stretch
from substrates.nudge import HeldBySprings, Nudge
from substrates.solvers.solver import left_over
from substrates.wiring import summed


class Balance(eqx.Module):
    """A state, looked at once.

    Attributes:
        positions: of all nodes.
        springs: how they are stretched.
        energy: F = E + beta C, joules.
        gradient: dF/dstate, newtons.
        scale: the forces of springs and loads that meet at each free coordinate; never 0.
        pull: what the nudge adds to the forces.
        curvature: what the nudge adds to the Hessian, over the free coordinates that are read.
        uneven: the sum of the squares of the forces as parts of those that meet.
        residual: see `Substrate.residual`.
        rounding: how uncertain the energy is.
        spacing: the mean length of the springs, at rest or as they are, whichever is longer.
        size: of the network, metres: its extent, or a spring where that is longer.
        extent: how far from the origin a coordinate is.
    """

    positions: Float[Array, "n dim"]
    springs: Stretch
    energy: Float[Array, ""]
    gradient: Float[Array, "free"]
    scale: Float[Array, "free"]
    pull: Float[Array, "free"] | None
    curvature: Float[Array, "read read"] | None
    uneven: Float[Array, ""]
    residual: Float[Array, ""]
    rounding: Float[Array, ""]
    spacing: Float[Array, ""]
    size: Float[Array, ""]
    extent: Float[Array, ""]


class Objective(eqx.Module):
    """The total energy over the free coordinates, as one vector.

    Attributes:
        net: the springs.
        prescribed: where the prescribed coordinates stand.
        nudge: what acts on the outputs.
    """

    net: SpringNetwork
    prescribed: Float[Array, "prescribed"]
    nudge: Nudge | HeldBySprings | None

    @property
    def read(self) -> np.ndarray:
        """The free coordinates that the nudge acts on."""
        return self.net.topology.read_coordinates

    def spread(self, values: Float[Array, "read"]) -> Float[Array, "free"]:
        """Numbers of the coordinates that are read, among those of all free ones."""
        return summed(values, self.read, self.net.topology.free.size)

    def balance(self, flat: Float[Array, "free"]) -> Balance:
        """What the state tells."""
        net, topology, nudge = self.net, self.net.topology, self.nudge
        positions = topology.placed(flat, self.prescribed)
        found = net.weighed(positions)
        energy, force, scale, meeting = found.energy, found.force, found.scale, found.scale
        pull = curvature = None
        if nudge is not None:
            output, slopes, apart = self.reading(positions)
            bend, felt = nudge.curvature(output), nudge.pull(output)
            sizes = jnp.abs(felt) + jnp.abs(bend) @ jnp.abs(output)
            energy += nudge.energy(output)
            pull = self.spread(felt @ slopes)
            force += pull
            meeting += self.spread(jnp.abs(sizes @ slopes))
            curvature = slopes.T @ bend @ slopes
            if apart is not None:
                turns = topology.read_slopes.astype(flat.dtype)
                blocks = dataclasses.replace(apart, tension=-felt).blocks
                curvature += jnp.tensordot(turns, blocks @ turns, ((0, 1), (0, 1)))
        scale = jnp.where(scale > 0, scale, 1.0)
        spacing = jnp.mean(jnp.maximum(net.rest_length, found.springs.length))
        size = jnp.maximum(jnp.max(jnp.max(positions, axis=0) - jnp.min(positions, axis=0)), spacing)
        strained = jnp.sqrt(jnp.sum(found.springs.tension**2))
        return Balance(
            positions=positions,
            springs=found.springs,
            energy=energy,
            gradient=-force,
            scale=scale,
            pull=pull,
            curvature=curvature,
            uneven=jnp.sum((force / scale) ** 2),
            residual=left_over(force, meeting),
            rounding=4 * float(jnp.finfo(flat.dtype).eps) * (jnp.abs(energy) + found.extent * strained),
            spacing=spacing,
            size=jnp.where(size > 0, size, 1.0),
            extent=found.extent,
        )

    def reading(
        self, positions: Float[Array, "n dim"]
    ) -> tuple[Float[Array, "outputs"], Float[Array, "outputs read"], Stretch | None]:
        """The outputs, their derivatives in the free coordinates that are read, and for distances the pairs of nodes as
        springs without tension.
        """
        topology = self.net.topology
        slopes = jnp.asarray(topology.read_slopes, positions.dtype)
        if topology.read_map is not None:
            return topology.shown(positions), slopes, None
        none = jnp.zeros(topology.outputs, positions.dtype)
        apart = Stretch.of(none, none, topology.vectors(positions, topology.pairs))
        return apart.length, jnp.sum(apart.along[:, :, None] * slopes, axis=1), apart
