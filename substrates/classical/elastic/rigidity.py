"""Rigidity: zero modes, states of self-stress, the Maxwell count, and what pre-stress adds to them."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from substrates.classical.elastic.springs import Topology, zero_mode_threshold
from substrates.solvers.certificate import state_tolerance

LARGEST = 4000
"""More free coordinates than this are not decomposed."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rigidity:
    """How a network of springs resists small motions.

    The compatibility matrix C maps small displacements of the free coordinates to extensions of the springs; C' maps
    tensions to forces. Its null space holds the zero modes, motions that stretch nothing to first order; that of C' the
    states of self-stress, tensions that balance without load. Their numbers obey the theorem of Maxwell and Calladine,

        zero modes - states of self-stress = free coordinates - springs.

    The Hessian H = C'kC + (pre-stress) decides on stability: pre-stress may hold a zero mode, or make one unstable.

    Attributes:
        free_coordinates, springs: how many there are.
        zero_modes: an orthonormal basis, shape (count, free coordinates).
        self_stress: an orthonormal basis of tensions, shape (count, springs).
        rigid_motions: how many independent motions of the network as a whole its clamps allow.
        eigenvalues: of the Hessian, ascending, newtons per metre.
        softness: the eigenvalues of the Hessian balanced by the stiffnesses at its nodes, ascending, without a unit:
            their signs are the same, and a weak part counts as much as a strong one.
        threshold: the size below which one of these counts as zero.

    Source: Calladine 1978, "Buckminster Fuller's tensegrity structures and Clerk Maxwell's rules for the construction
    of stiff frames"; Lubensky et al. 2015, arXiv 1503.01324.
    """

    free_coordinates: int
    springs: int
    zero_modes: np.ndarray
    self_stress: np.ndarray
    rigid_motions: int
    eigenvalues: np.ndarray
    softness: np.ndarray
    threshold: float

    @property
    def maxwell_count(self) -> int:
        """Free coordinates less springs: zero modes less states of self-stress."""
        return self.free_coordinates - self.springs

    @property
    def mechanisms(self) -> int:
        """Zero modes that are no motion of the network as a whole."""
        return len(self.zero_modes) - self.rigid_motions

    @property
    def soft(self) -> int:
        """Motions that cost no energy to second order, pre-stress included."""
        return int(np.sum(np.abs(self.softness) <= self.threshold))

    @property
    def unstable(self) -> int:
        """Motions that lower the energy."""
        return int(np.sum(self.softness < -self.threshold))

    @property
    def stable(self) -> bool:
        """Whether every motion costs energy."""
        return self.soft == 0 and self.unstable == 0

    def __str__(self) -> str:
        verdict = "stable" if self.stable else f"{self.soft} soft and {self.unstable} unstable modes"
        lowest = self.eigenvalues.min(initial=np.inf)
        return (
            f"{self.free_coordinates} free coordinates - {self.springs} springs = {self.maxwell_count} = "
            f"{len(self.zero_modes)} zero modes ({self.rigid_motions} of them rigid motions) - {len(self.self_stress)} "
            f"states of self-stress; with pre-stress {verdict}, smallest eigenvalue {lowest:.3g} N/m"
        )

    def __repr__(self) -> str:
        return f"<Rigidity: {self}>"


def refuse_large(free_coordinates: int) -> None:
    """Raises ValueError for a network of which not all modes can be computed."""
    if free_coordinates > LARGEST:
        raise ValueError(
            f"rigidity: wanted at most {LARGEST} free coordinates, of which all modes are computed, got "
            f"{free_coordinates}; `relax` reports the softest mode of larger networks in its status"
        )


def analyse(
    topology: Topology,
    stiffness: Float[Array, "springs"],
    positions: Float[Array, "n dim"],
    hessian: Float[Array, "free free"],
    rest_length: Float[Array, "springs"],
) -> Rigidity:
    """The rigidity of a network whose nodes stand somewhere and whose energy has a Hessian there.

    Raises:
        ValueError: for a spring of no length that has a rest length.
    """
    independent = state_tolerance(stiffness.dtype)
    places, matrix = np.asarray(positions, float), np.asarray(hessian, float)
    left, values, right = np.linalg.svd(compatibility(topology, places, np.asarray(stiffness), np.asarray(rest_length)))
    rank = int(np.sum(values > independent * values.max(initial=0.0)))
    root = 1 / np.sqrt(np.asarray(topology.node_stiffness(stiffness), float))
    return Rigidity(
        free_coordinates=topology.free.size,
        springs=len(topology.edges),
        zero_modes=right[rank:],
        self_stress=left[:, rank:].T,
        rigid_motions=_rigid_motions(topology, places, independent),
        eigenvalues=np.linalg.eigvalsh(matrix),
        softness=np.linalg.eigvalsh((root[:, None] * matrix) * root),
        threshold=zero_mode_threshold(stiffness.dtype),
    )


def compatibility(topology: Topology, places: np.ndarray, stiffness: np.ndarray, rest_length: np.ndarray) -> np.ndarray:
    """C, the extension of each spring per displacement of each free coordinate, shape (springs, free coordinates); 0
    for a slack rope, and for a spring whose length and rest length are 0, which holds by pre-stress alone.
    """
    vectors = places[topology.edges[:, 1]] - places[topology.edges[:, 0]]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    short = (lengths[:, 0] == 0) & (rest_length > 0)
    if np.any(short):
        raise ValueError(f"state: wanted joined nodes apart, got spring {int(np.argmax(short))} of no length")
    unit = np.where(stiffness[:, None] > 0, vectors, 0.0) / np.where(lengths > 0, lengths, 1.0)
    whole = np.zeros((len(unit), topology.n, topology.dim))
    spring = np.arange(len(unit))
    whole[spring, topology.edges[:, 1]] = unit
    whole[spring, topology.edges[:, 0]] = -unit
    return whole.reshape(len(unit), -1)[:, topology.free]


def _rigid_motions(topology: Topology, places: np.ndarray, independent: float) -> int:
    """How many translations and rotations leave every prescribed coordinate where it is."""
    n, dim = places.shape
    centred = (places - places.mean(axis=0)) / np.ptp(places, axis=0).max()
    motions = [np.tile(axis, (n, 1)) for axis in np.eye(dim)]
    for a in range(dim):
        for b in range(a + 1, dim):
            turn = np.zeros((n, dim))
            turn[:, a], turn[:, b] = -centred[:, b], centred[:, a]
            motions.append(turn)
    moved = np.stack(motions).reshape(len(motions), -1)[:, topology.prescribed]
    if not moved.size:
        return len(motions)
    values = np.linalg.svd(moved, compute_uv=False)
    return len(motions) - int(np.sum(values > independent * values.max()))
