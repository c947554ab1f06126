"""Where phases may start: the ground state of the spherical model, from the spectrum of the coupling matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.classical.oscillator.whole import Whole
from substrates.solvers.batching import spectra_in_turn

BISECTIONS = 60


def spectral_phases(whole: Whole) -> Float[Array, "n"]:
    """The angles of the arrows z that minimise the energy where only the sum of their squared lengths is held:

        E = -1/2 z'Wz* - Re(b'z*),  |z|^2 = n:      z = (lambda - W)^-1 b,  lambda >= lambda_1,

    with b what fields and clamped phases exert, and lambda set by the length. Without b it is the first eigenvector u_1
    of W, and arrows on one line leave no torque on any phase, stable or not. So the second eigenvector is added across
    it: z = sqrt(lambda_1) u_1 + i sqrt(lambda_2) u_2, whose cosines Re(z_i z_j*) are the nearest to W_ij that arrows in
    a plane have (Eckart and Young 1936), in proportion to what b leaves of the first.

    Random phases hold vortices and twists, which no smooth motion removes. Each is a state with couplings that pull
    less than they can, so that the others cannot hold the natural frequencies apart, and phases slip for ever. Leading
    eigenvectors hold none that the couplings do not ask for. Natural frequencies and second harmonics are left out.

    Args:
        whole: the couplings between the phases that settle, and what the rest exerts on them.

    Source: Berlin and Kac 1952, for the spherical model. ("Spectral seeding" in arXiv 2604.10272 is another thing: it
    sets natural frequencies, not phases.)
    """
    n = whole.along.size
    values, vectors = spectra_in_turn(jnp.linalg.eigh)(whole.coupling)
    first = values[-1]
    gaps = first - values
    drive = jnp.stack([whole.along, whole.across]) @ vectors

    def along(above: Float[Array, ""]) -> Float[Array, "2 n"]:
        stiffness = above + gaps
        return drive * jnp.where(stiffness > 0, 1 / jnp.where(stiffness > 0, stiffness, 1), 0)[None]

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        short = jnp.sum(along(middle) ** 2) < n
        return jnp.where(short, low, middle), jnp.where(short, middle, high)

    most = jnp.sqrt(jnp.sum(drive**2) / n)
    parts = along(jax.lax.fori_loop(0, BISECTIONS, halved, (jnp.zeros_like(most), most))[1])
    # its first part has the length that the others leave, which no rounding of lambda moves
    size = jnp.linalg.norm(drive[:, -1])
    unit = jnp.where(size > 0, drive[:, -1] / jnp.where(size > 0, size, 1), jnp.array([1, 0], most.dtype))
    parts = parts.at[:, -1].set(unit * jnp.sqrt(jnp.maximum(n - jnp.sum(parts[:, :-1] ** 2), 0)))
    if n > 1:
        share = jnp.sqrt(jnp.maximum(values[-2], 0) / jnp.where(first > 0, first, 1))
        parts = parts.at[:, -2].add(share * jnp.stack([-parts[1, -1], parts[0, -1]]))
    cosine, sine = parts @ vectors.T
    return jnp.arctan2(sine, cosine)
