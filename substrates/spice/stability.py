"""Whether a circuit stays at an operating point: the second derivative of its total energy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy
from jaxtyping import Float

from substrates.spice.deck import GROUND, Element, node_number
from substrates.spice.live import Roles
from substrates.wiring import connected_parts

Array = np.ndarray

_ROUNDING = 1e-12
_LARGEST_EXPONENT = 600.0


class Stability:
    """The conductance matrix of a circuit at an operating point, and whether it is positive.

    Nodes that voltage sources join move together, and those that they hold do not move. At a minimum of the total
    energy the matrix of dI/dv over the other nodes is positive definite; with conductances that yield to the power it
    is that of theta - epsilon dv^2, the Schur complement of the joint second derivative.

    Attributes:
        certain: whether no fixed resistor is negative, so that trained conductances alone decide.
    """

    def __init__(self, roles: Roles):
        deck = roles.deck
        by_kind = {kind: deck.of_kind(kind) for kind in "rvdefgh"}
        self._judged = not any(by_kind[kind] for kind in "efgh")
        trained = set(roles.trainable)
        plain = [element for element in by_kind["r"] if element not in trained]
        self._plain = np.array([1 / element.value for element in plain])
        self.certain = bool(np.all(self._plain > 0))
        laws = [deck.models[e.reference].at(deck.temperature, deck.nominal_temperature) for e in by_kind["d"]]
        self._saturation, self._emission = np.array(laws).reshape(-1, 2).T
        self._diodes = _ends(by_kind["d"])
        movable = self._movable(by_kind["v"], [node for e in deck.elements for node in e.nodes])
        outputs = [Element("output", (node, GROUND)) for node in roles.outputs]
        self._size = int(movable.max(initial=-1)) + 1
        pairs = movable[_ends([*roles.trainable, *plain, *by_kind["d"], *outputs])]
        self._outputs = len(outputs)
        # each conductance enters at (a, a), (b, b) and, negative, at (a, b), (b, a); -1 is what does not move
        rows, columns = pairs[:, [0, 1, 0, 1]], pairs[:, [0, 1, 1, 0]]
        signs = np.broadcast_to([1.0, 1.0, -1.0, -1.0], rows.shape)
        inside = (rows >= 0) & (columns >= 0)
        self._element = np.nonzero(inside)[0]
        self._place = (rows * self._size + columns)[inside]
        self._sign = signs[inside]

    def holds(self, voltages: Float[Array, "nodes"], trained: Float[Array, "knobs"], beta: float) -> bool:
        """Whether the circuit stays at these voltages, with these conductances of its trained resistors.

        Circuits with controlled sources are not judged: True.
        """
        if not self._judged or not self._size:
            return True
        padded = np.append(voltages, 0.0)
        drops = padded[self._diodes[:, 0]] - padded[self._diodes[:, 1]]
        exponents = np.minimum(drops / self._emission, _LARGEST_EXPONENT)
        diodes = self._saturation / self._emission * np.exp(exponents)
        weights = np.concatenate([trained, self._plain, diodes, np.full(self._outputs, beta)])[self._element]
        matrix = np.bincount(self._place, self._sign * weights, self._size**2).reshape(self._size, self._size)
        matrix[np.diag_indices(self._size)] += _ROUNDING * np.abs(matrix.diagonal()).max()
        try:
            scipy.linalg.cholesky(matrix, overwrite_a=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            return False
        return True

    @staticmethod
    def _movable(sources: list[Element], names: Iterable[str]) -> Array:
        """For each node, ground last, the number of what moves with it, or -1."""
        count = 1 + max(map(node_number, names))
        group = connected_parts(count + 1, _ends(sources) % (count + 1))
        still = group[-1]
        numbers = np.cumsum(np.arange(group.max() + 1) != still) - 1
        return np.where(group == still, -1, numbers[group])


def _ends(elements: Iterable[Element]) -> Array:
    pairs = [[node_number(name) for name in element.nodes[:2]] for element in elements]
    return np.array(pairs, int).reshape(-1, 2)
