"""What is read from spins: sums of Pauli strings, and probabilities of measurement outcomes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates import arguments
from substrates.quantum.basis import all_signs
from substrates.wiring import HashedByContent

_FACTOR = re.compile(r"([A-Za-z])(\d+)")


@dataclasses.dataclass(frozen=True)
class PauliString:
    """A product of Pauli matrices of different spins, such as Z0 X3: a real symmetric operator.

    On a basis state it flips the spins in `flips` and multiplies by `factor` and the signs (+1 up, -1 down) of the
    spins in `signs`, those before the flips. No factor at all is the identity.

    Attributes:
        flips: the spins on which X or Y acts.
        signs: the spins on which Z or Y acts.
        factor: 1, or (-1)^(m/2) for m factors Y.
    """

    flips: tuple[int, ...]
    signs: tuple[int, ...]
    factor: float

    @classmethod
    def parse(cls, name: str | int) -> PauliString:
        """The string of a name: "Z0", "X3", "Z0 Z1" (also "Z0*Z1"); an integer i stands for "Zi".

        Raises:
            ValueError: for letters other than X, Y and Z, a spin that occurs twice, and an odd number of Y, whose mean
                is zero in every real state.
        """
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
            return cls((), (int(name),), 1.0)
        if not isinstance(name, str):
            raise ValueError(f"outputs: wanted a spin number or a name such as 'Z0' or 'X1 X2', got {name!r}")
        factors = [_FACTOR.fullmatch(part) for part in name.replace("*", " ").split()]
        if not all(factors):
            raise ValueError(f"outputs: wanted factors such as Z0 or X3, separated by spaces, got {name!r}")
        letters = [(found[1], int(found[2])) for found in factors if found]
        unknown = [letter for letter, _ in letters if letter not in "XYZ"]
        if unknown:
            raise ValueError(f"outputs: wanted the bases X, Y or Z, got {unknown[0]!r} in {name!r}")
        spins = [spin for _, spin in letters]
        if len(set(spins)) < len(spins):
            raise ValueError(f"outputs: wanted each spin once in a string, got {name!r}")
        count = sum(letter == "Y" for letter, _ in letters)
        if count % 2:
            raise ValueError(
                f"outputs: wanted an even number of Y, got {name!r}; an odd one has no mean in a real state"
            )
        pick = lambda kinds: tuple(sorted(spin for letter, spin in letters if letter in kinds))
        return cls(pick("XY"), pick("YZ"), (-1.0) ** (count // 2))

    @property
    def spins(self) -> tuple[int, ...]:
        """The spins on which it acts."""
        return tuple(sorted({*self.flips, *self.signs}))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Observables(HashedByContent):
    """Operators O_k of n spins, each a sum of Pauli strings: O_k = sum_a mixing[k, a] P_a. Static under compilation.

    Attributes:
        n: the number of spins.
        strings: the P_a.
        mixing: shape (operators, strings).
    """

    n: int
    strings: tuple[PauliString, ...]
    mixing: np.ndarray

    @classmethod
    def of(cls, operators: Sequence[Any], place: Mapping[int, int], n: int) -> Observables:
        """The operators named by strings, integers, or dicts from names to weights.

        Args:
            operators: such as [3, "X0", "Z0 Z1", {"": 0.5, "Z2": 0.5}].
            place: where each spin that may occur sits among the n.
        """
        sums = [operator if isinstance(operator, Mapping) else {operator: 1.0} for operator in operators]
        numbers: dict[PauliString, int] = {}
        rows = []
        for terms in sums:
            row: dict[int, float] = {}
            for name, weight in terms.items():
                string = PauliString.parse(name)
                strange = [spin for spin in string.spins if spin not in place]
                if strange:
                    raise ValueError(f"outputs: wanted free spins out of {sorted(place)}, got spin {strange[0]}")
                flips, signs = (tuple(place[spin] for spin in spins) for spins in (string.flips, string.signs))
                at = numbers.setdefault(PauliString(flips, signs, string.factor), len(numbers))
                row[at] = row.get(at, 0.0) + float(arguments.real_floats("outputs", weight))
            rows.append(row)
        mixing = np.zeros((len(rows), len(numbers)))
        for k, row in enumerate(rows):
            for at, weight in row.items():
                mixing[k, at] = weight
        if not np.isfinite(mixing).all():
            raise ValueError("outputs: wanted finite weights of Pauli strings, got NaN or infinity")
        return cls(n, tuple(numbers), mixing)

    @functools.cached_property
    def kinds(self) -> tuple[list[int], list[int], list[int]]:
        """Which strings are diagonal, which a single X, and which something else."""
        single = lambda string: len(string.flips) == 1 and not string.signs
        kinds = [0 if not string.flips else 1 if single(string) else 2 for string in self.strings]
        diagonal, one, other = ([a for a, kind in enumerate(kinds) if kind == wanted] for wanted in range(3))
        return diagonal, one, other

    @functools.cached_property
    def signs(self) -> tuple[np.ndarray, np.ndarray]:
        """`half_signs` of the diagonal strings."""
        return half_signs([self.strings[a] for a in self.kinds[0]], self.n)

    def means(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "operators"]:
        """<v|O_k|v> of each operator."""
        diagonal, single, other = self.kinds
        means = jnp.zeros(len(self.mixing), vector.dtype)
        if diagonal:
            left, right = (signs.astype(vector.dtype) for signs in self.signs)
            table = (vector * vector).reshape(left.shape[1], right.shape[1])
            means += self.mixing[:, diagonal].astype(vector.dtype) @ jnp.sum((left @ table) * right, axis=1)
        if single or other:
            flipped = [jnp.vdot(apply_string(self.strings[a], vector, self.n), vector) for a in single + other]
            means += self.mixing[:, single + other].astype(vector.dtype) @ jnp.stack(flipped)
        return means


def outcomes(spins: Sequence[int], basis: str = "Z", count: int | None = None) -> list[dict[str, float]]:
    """The projectors on the outcomes of measuring some spins: as outputs, their probabilities.

    Outcome number m = (bits of the spins, the first the most significant) has bit 0 where the spin points up along the
    basis, and the projector prod_i (1 + (-1)^bit_i P_i)/2.

    Args:
        spins: which are measured, at most 10.
        basis: "Z" or "X".
        count: how many outcomes are read, the first ones; all 2^k by default.

    Raises:
        ValueError: for an unknown basis, repeated spins, or more outcomes than there are.
    """
    spins = [int(spin) for spin in spins]
    check_basis(basis)
    if not 0 < len(spins) <= 10 or len(set(spins)) < len(spins):
        raise ValueError(f"spins: wanted one to ten different spins, got {spins}")
    kept = 2 ** len(spins) if count is None else int(count)
    if not 0 < kept <= 2 ** len(spins):
        raise ValueError(f"count: wanted 1 to {2 ** len(spins)} outcomes of {len(spins)} spins, got {count}")
    projectors = []
    for outcome in itertools.islice(itertools.product((0, 1), repeat=len(spins)), kept):
        terms = {}
        for chosen in itertools.product((0, 1), repeat=len(spins)):
            name = " ".join(f"{basis}{spin}" for spin, taken in zip(spins, chosen, strict=True) if taken)
            terms[name] = (-1) ** int(np.dot(outcome, chosen)) / 2 ** len(spins)
        projectors.append(terms)
    return projectors


def over_labels(operators: Sequence[Any], number: Mapping[Hashable, int]) -> list[Any]:
    """Operators over the labels of nodes as operators over their numbers, which `Observables.of` reads.

    A label stands for <Z> of its node. A Pauli string is a pair (basis, label), a tuple of such pairs, or, where labels
    are whole numbers, a name such as "Z0 X3"; "" and () are the identity. A dict from any of these to weights is their
    sum.

    Args:
        operators: such as ["a", ("X", "a"), (("Z", "a"), ("Z", "b")), {"": 0.5, "a": 0.5}].
        number: of each label.

    Raises:
        ValueError: for what is none of these, and for what could be two of them.
    """

    def factor(pair: Any) -> bool:
        return (
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and pair[0] in ("X", "Y", "Z")
            and arguments.is_label(pair[1], number)
        )

    def renamed(entry: Any) -> str | int:
        found: list[str | int] = []
        if arguments.is_label(entry, number):
            found.append(number[entry])
        if factor(entry):
            found.append(f"{entry[0]}{number[entry[1]]}")
        elif isinstance(entry, tuple) and all(map(factor, entry)):
            found.append(" ".join(f"{basis}{number[label]}" for basis, label in entry))
        elif isinstance(entry, str):
            factors = [_FACTOR.fullmatch(part) for part in entry.replace("*", " ").split()]
            if all(part and arguments.is_label(int(part[2]), number) for part in factors):
                found.append(" ".join(f"{part[1]}{number[int(part[2])]}" for part in factors if part))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"outputs: wanted entries of one meaning, got {entry!r}, which is the label of a node and a Pauli "
                "string: write ('Z', label) or relabel the nodes"
            )
        raise ValueError(
            "outputs: wanted labels of nodes of the graph, pairs such as ('X', label), tuples of such pairs or names "
            f"such as 'Z0 X3' of labels that are whole numbers, got {entry!r}"
        )

    return [
        {renamed(term): weight for term, weight in operator.items()}
        if isinstance(operator, Mapping)
        else renamed(operator)
        for operator in operators
    ]


def check_basis(basis: str) -> None:
    """Refuses anything but "Z" and "X"."""
    if basis not in ("Z", "X"):
        raise ValueError(f"basis: wanted 'Z' or 'X', got {basis!r}")


def half_signs(strings: Sequence[PauliString], n: int) -> tuple[np.ndarray, np.ndarray]:
    """What strings multiply basis states by, before their flips: for each a row over the states of the first half of n
    spins and one over those of the second, whose product it is.
    """
    half = n // 2

    def rows(first: int, count: int) -> np.ndarray:
        inside = [[spin - first for spin in string.signs if first <= spin < first + count] for string in strings]
        return np.stack([np.prod(all_signs(count)[:, spins], axis=1) for spins in inside])

    return np.array([[string.factor] for string in strings]) * rows(0, half), rows(half, n - half)


def apply_string(string: PauliString, vector: Float[Array, "amplitudes"], n: int) -> Float[Array, "amplitudes"]:
    """P |v>."""
    if string.signs:
        left, right = (signs[0].astype(vector.dtype) for signs in half_signs([string], n))
        vector = ((vector.reshape(left.size, right.size) * right[None]) * left[:, None]).ravel()
    # neighbouring spins that flip, or that do not, share an axis
    runs = [
        (flipped, len(list(run)))
        for flipped, run in itertools.groupby(range(n), lambda spin: spin in set(string.flips))
    ]
    shaped = vector.reshape([2**length for _, length in runs])
    return jnp.flip(shaped, [axis for axis, (flipped, _) in enumerate(runs) if flipped]).ravel()
