"""What acts on single phases: fields, second harmonics, natural frequencies; and read-outs of phases."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Inexact

Readout = Literal["phase", "sine"]


def arrows(phase: Inexact[Array, "*batch nodes"]) -> Inexact[Array, "*batch 2 nodes"]:
    """e^(i phi) as pairs (cos phi, sin phi) of reals."""
    return jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=-2)


def angle_between(new: Inexact[Array, "2 nodes"], old: Inexact[Array, "2 nodes"]) -> Inexact[Array, "nodes"]:
    """The angle in (-pi, pi] by which each arrow has turned."""
    cross = new[1] * old[0] - new[0] * old[1]
    return jnp.arctan2(cross, new[0] * old[0] + new[1] * old[1])


def wrapped(angle: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """The same angle in [-pi, pi]."""
    return angle - 2 * jnp.pi * jnp.round(angle / (2 * jnp.pi))


def local_energy(phase: Array, field: Array, field_phase: Array, harmonic: Array | None, frequency: Array | None):
    """-sum h cos(phi - psi) - 1/2 sum K cos 2 phi - sum omega phi, over the last axis."""
    energy = -jnp.sum(field * jnp.cos(phase - field_phase), axis=-1)
    if harmonic is not None:
        energy -= 0.5 * jnp.sum(harmonic * jnp.cos(2 * phase), axis=-1)
    if frequency is not None:
        energy -= jnp.sum(frequency * phase, axis=-1)
    return energy


def local_torque(phase: Array, field: Array, field_phase: Array, harmonic: Array | None, frequency: Array | None):
    """-d(local energy)/dphi = -h sin(phi - psi) - K sin 2 phi + omega."""
    torque = -field * jnp.sin(phase - field_phase)
    if harmonic is not None:
        torque -= harmonic * jnp.sin(2 * phase)
    if frequency is not None:
        torque += frequency
    return torque


def local_measure(
    phase: Array, field: Array, field_phase: Array, harmonic: Array | None, frequency: Array | None
) -> tuple[Any, ...]:
    """The derivatives of the local energy by h, psi, K and omega, averaged over the leading axis."""
    mean = lambda values: jnp.mean(values, axis=0)
    apart = phase - field_phase
    return (
        mean(-jnp.cos(apart)),
        -field * mean(jnp.sin(apart)),
        None if harmonic is None else mean(-0.5 * jnp.cos(2 * phase)),
        None if frequency is None else mean(-phase),
    )


def local_contrast(
    middle: Array, change: Array, field: Array, field_phase: Array, harmonic: Array | None, frequency: Array | None
) -> tuple[Any, ...]:
    """`local_measure` at middle + change/2 minus that at middle - change/2, without cancellation."""
    mean = lambda values: jnp.mean(values, axis=0)
    apart, half = middle - field_phase, 2 * jnp.sin(change / 2)
    return (
        mean(jnp.sin(apart) * half),
        -field * mean(jnp.cos(apart) * half),
        None if harmonic is None else mean(jnp.sin(2 * middle) * jnp.sin(change)),
        None if frequency is None else mean(-change),
    )


def shown(phase: Inexact[Array, "outputs"], readout: Readout) -> Inexact[Array, "outputs"]:
    """What the output terminals show of the phases: themselves, or their sines."""
    return jnp.sin(phase) if readout == "sine" else phase


def nudged_arrow(
    phase: Array, arrow: Array, nudge: Any, readout: Readout
) -> tuple[Inexact[Array, "outputs"], Inexact[Array, "outputs"]]:
    """The torque -beta dC/dphi and the stiffness beta d2C/dphi2 (its diagonal) of a nudge on the output phases."""
    if readout == "phase":
        return nudge.pull(phase), nudge.stiffness(phase)
    cosine, sine = arrow
    pull = nudge.pull(sine)
    return pull * cosine, nudge.stiffness(sine) * cosine**2 + pull * sine
