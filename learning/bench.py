"""What rules on the bench share: examples by copies of a system, and whether it came to rest."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from learning.rule import ConvergenceError
from substrates.laboratory.system import PhysicalSystem, Spec
from substrates.substrate import Status, at_rest


def by_copies(spec: Spec, examples: Float[np.ndarray, "n numbers"]) -> Float[np.ndarray, "rounds *copies numbers"]:
    """As many examples at once as the system has copies. Raises ValueError where they do not fill them."""
    if spec.copies is None:
        return examples
    if len(examples) % spec.copies:
        raise ValueError(
            f"x: wanted a multiple of the {spec.copies} copies of the system, got {len(examples)} examples"
        )
    return examples.reshape(-1, spec.copies, examples.shape[-1])


def settle(system: PhysicalSystem, strict: bool, advice: str) -> int:
    """1 where the system does not come to rest, which a strict rule refuses by ConvergenceError, 0 where it does."""
    status = system.settle()
    if at_rest(status):
        return 0
    if strict:
        raise ConvergenceError(f"the system did not settle ({Status[status]}): {advice}, or count it with strict=False")
    return 1
