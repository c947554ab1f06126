"""The contract of a physical system: five verbs, in numpy, and nothing of what is inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from substrates import explained
from substrates.solvers.solver import Status

Array = np.ndarray


class LaboratoryError(RuntimeError):
    """A physical system failed: it does not settle, does not answer, or answers with what is no number."""


@dataclass(frozen=True)
class Terminals:
    """A group of knobs, parameters, inputs or outputs, as an experimenter finds them labelled.

    Attributes:
        size: how many there are.
        unit: of their values; empty for pure numbers.
        lower, upper: the range of each, a number or shape (size,).
    """

    size: int
    unit: str = ""
    lower: Float[Array, "size"] | float = -np.inf
    upper: Float[Array, "size"] | float = np.inf

    @property
    def limited(self) -> bool:
        """Whether any of them has a limit."""
        return bool(np.any(np.isfinite(self.lower)) or np.any(np.isfinite(self.upper)))

    def __post_init__(self):
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size: wanted a positive whole number, got {self.size!r}")
        for name in ("lower", "upper"):
            if np.shape(getattr(self, name)) not in ((), (self.size,)):
                raise ValueError(
                    f"{name}: wanted a number or shape ({self.size},), got {np.shape(getattr(self, name))}"
                )
        if not np.all(np.asarray(self.lower) <= np.asarray(self.upper)):
            raise ValueError("lower, upper: wanted lower <= upper everywhere, got the reverse or NaN somewhere")


@dataclass(frozen=True)
class Spec:
    """What is known of a physical system before it is touched.

    Attributes:
        knobs: what `set_knobs` takes.
        parameters: what the knobs hold and `read` shows, as many as there are knobs; their range is the physical one.
        inputs, outputs: what is clamped and what is read, of one copy.
        copies: how many copies of the system settle side by side, sharing the parameters; None for one system, whose
            inputs, targets and outputs have no leading axis.
    """

    knobs: Terminals
    parameters: Terminals
    inputs: Terminals
    outputs: Terminals
    copies: int | None = None

    def __post_init__(self):
        if self.knobs.size != self.parameters.size:
            raise ValueError(
                f"knobs: wanted one for each of the {self.parameters.size} parameters, got {self.knobs.size}"
            )
        if self.copies is not None and (not isinstance(self.copies, int) or self.copies < 1):
            raise ValueError(f"copies: wanted a positive whole number or None, got {self.copies!r}")

    @property
    def leading(self) -> tuple[int, ...]:
        """The leading axes of inputs, targets and outputs."""
        return () if self.copies is None else (self.copies,)


@dataclass(frozen=True)
class Reading:
    """What the meters show; it does not change when the system does.

    Attributes:
        outputs: shape (outputs,), with a leading axis of copies where there are copies.
        parameters: the read-back, shape (parameters,).
        knobs: where the knobs stand, shape (knobs,).
        output_error, parameter_error: one standard deviation of a reading, where the system knows it.
    """

    outputs: Float[Array, "*copies outputs"]
    parameters: Float[Array, "parameters"]
    knobs: Float[Array, "knobs"]
    output_error: float | None = None
    parameter_error: float | None = None


@runtime_checkable
class PhysicalSystem(Protocol):
    """A system on the bench: an operator sets knobs, clamps inputs, nudges outputs, waits and reads.

    Its parameters are physical: a knob u holds its parameter theta softly, and both settle under the total energy
    U(u, theta)/epsilon + E(theta, s, x) + beta C(s, target), of which the operator knows neither U, E nor C. Every verb
    refuses what is out of range or of the wrong shape with a ValueError and leaves the system as it was.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """

    @property
    def spec(self) -> Spec:
        """Sizes, ranges and units."""
        ...

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        """Turns every knob."""
        ...

    def clamp(self, x: Float[Array, "*copies inputs"] | None) -> None:
        """Holds the inputs; None releases them to zero."""
        ...

    def nudge(self, target: Float[Array, "*copies outputs"] | None, beta: float) -> None:
        """Pulls the outputs towards a target with strength beta, which may be negative; beta = 0 removes the nudge."""
        ...

    def settle(self) -> Status:
        """Waits until the system is at rest, from wherever it is."""
        ...

    def read(self) -> Reading:
        """Reads outputs, parameters and where the knobs stand."""
        ...


@runtime_checkable
class ConjugateReadout(Protocol):
    """Capability: a meter for the force that the system exerts on each parameter (a power 1/2 v^2 on a conductance)."""

    def read_conjugate(self) -> Float[Array, "parameters"]:
        """dE/dtheta at the state at hand, averaged over copies."""
        ...


@runtime_checkable
class OutputClamp(Protocol):
    """Capability: outputs can be held at given values, as inputs are."""

    def hold_outputs(self, target: Float[Array, "*copies outputs"] | None) -> None:
        """Holds the outputs at a target from the next settling on; None releases them. While they are held there is no
        nudge.
        """
        ...


@runtime_checkable
class SelfHolding(Protocol):
    """Capability of simulated systems: they know the knobs that hold their parameters where they are."""

    def hold(self, theta: Float[Array, "parameters"] | None = None) -> Status:
        """Settles with the parameters held at theta (None: where they are), then sets the knobs that hold them."""
        ...


class Simulation(Protocol):
    """What a simulated system does as pure functions of JAX, for steps that are compiled.

    Parameters, knobs and states are trees; inputs, targets and states are those of all copies.
    """

    @property
    def dtype(self) -> Any:
        """Of inputs, targets and betas."""
        ...

    def nudge(self, targets: Any, beta: Any) -> Any:
        """The nudge towards the targets; none where beta is None."""
        ...

    def keys(self, example: Any, copies: int) -> Any:
        """The keys of the copies, for all phases of an example."""
        ...

    def inside(self, parameters: PyTree, margin: float) -> PyTree:
        """The parameters `inside` their limits."""
        ...

    def read(self, parameters: PyTree, states: PyTree, xs: Any) -> Any:
        """The outputs, shape (copies, outputs)."""
        ...

    def hold(self, parameters: PyTree, xs: Any, nudge: Any, starts: PyTree, keys: Any) -> tuple[PyTree, PyTree, Status]:
        """(the knobs that hold the parameters where they are, the states there, one status for all)."""
        ...

    def settle(
        self, parameters: PyTree, knobs: PyTree, xs: Any, nudge: Any, starts: PyTree, keys: Any
    ) -> tuple[PyTree, PyTree, Status]:
        """(the parameters and the states where they come to rest together, how that ended)."""
        ...


class Place(NamedTuple):
    """Where a simulated system stands, and in which conditions; trees and arrays as of `Simulation`."""

    parameters: PyTree
    knobs: PyTree
    states: PyTree
    xs: Any
    targets: Any
    beta: float


@runtime_checkable
class Simulated(SelfHolding, Protocol):
    """Capability of simulated systems: what they do is a pure function, so that many steps are one compiled call."""

    def simulation(self) -> tuple[Simulation, PyTree, int]:
        """(what it does, its parameters, how many inputs it has met)."""
        ...

    def resume(self, place: Place | None, status: Status, met: int) -> None:
        """Goes on from where compiled steps came to; None leaves it where it is."""
        ...


def inside(theta: Any, lower: Any, upper: Any, margin: float) -> Any:
    """The parameters, those at a limit moved inside by a part `margin` of their root mean square distance from it.

    Args:
        theta: shape (parameters,), of numpy, or of JAX in compiled code.
        lower, upper: the limits, numbers or shape (parameters,); infinite where there is none.
        margin: a small part of 1.
    """
    library = jnp if isinstance(theta, jax.Array) else np
    for limit, sign, further in ((lower, 1, library.maximum), (upper, -1, library.minimum)):
        bounded = library.broadcast_to(library.isfinite(limit), theta.shape)
        edge = library.where(bounded, limit, 0)
        count = library.maximum(bounded.sum(), 1).astype(theta.dtype)
        distance = library.sqrt(library.sum((theta - edge) ** 2, where=bounded) / count)
        theta = library.where(bounded, further(theta, edge + sign * margin * distance), theta)
    return theta


def checked_knobs(spec: Spec, u: Float[Array, "knobs"]) -> Float[Array, "knobs"]:
    """The knobs as float64, refused where they are not finite, out of range or too many."""
    values = _numbers("u", u, (spec.knobs.size,), spec.knobs.unit)
    outside = np.flatnonzero((values < spec.knobs.lower) | (values > spec.knobs.upper))
    if outside.size:
        at = int(outside[0])
        lower, upper = (np.broadcast_to(bound, values.shape)[at] for bound in (spec.knobs.lower, spec.knobs.upper))
        raise ValueError(
            f"u: wanted knob {at} from {lower:g} to {upper:g} {spec.knobs.unit}".rstrip()
            + f", got {values[at]:g} ({outside.size} knobs are out of range): bring them inside; see {explained.BENCH}"
        )
    return values


def checked_input(spec: Spec, x: Float[Array, "*copies inputs"] | None) -> Float[Array, "*copies inputs"]:
    """The inputs as float64, zeros for None."""
    shape = (*spec.leading, spec.inputs.size)
    return np.zeros(shape) if x is None else _numbers("x", x, shape, spec.inputs.unit)


def checked_nudge(
    spec: Spec, target: Float[Array, "*copies outputs"] | None, beta: float
) -> tuple[Float[Array, "*copies outputs"], float]:
    """(target, beta) as float64; without a nudge the target may be None."""
    if not np.ndim(beta) == 0 or not np.isfinite(beta):
        raise ValueError(f"beta: wanted a finite number, got {beta!r}")
    shape = (*spec.leading, spec.outputs.size)
    if target is None:
        if beta != 0:
            raise ValueError(f"target: wanted shape {shape} for a nudge of beta {float(beta):g}, got None")
        return np.zeros(shape), 0.0
    advice = "; give one number for each output of each copy (labels one-hot)"
    return _numbers("target", target, shape, spec.outputs.unit, advice), float(beta)


def checked_hold(
    spec: Spec, target: Float[Array, "*copies outputs"] | None, beta: float
) -> Float[Array, "*copies outputs"] | None:
    """The target at which outputs are to be held, as float64; refused while a nudge of strength beta acts."""
    if target is None:
        return None
    if beta != 0:
        raise ValueError(f"target: outputs cannot be held while a nudge of beta {beta:g} acts; remove it first")
    return checked_nudge(spec, target, 1.0)[0]


def refuse_nudge_of_held(held: Array | None, beta: float) -> None:
    """Raises ValueError for a nudge of outputs that are held."""
    if held is not None and beta != 0:
        raise ValueError(f"beta: held outputs cannot be nudged, got {beta:g}; release them by hold_outputs(None)")


def checked_reading(spec: Spec, reading: Reading) -> Reading:
    """The same reading, or LaboratoryError if it is not finite or of the wrong shape."""
    wanted = {"outputs": (*spec.leading, spec.outputs.size)}
    wanted |= {"parameters": (spec.parameters.size,), "knobs": (spec.knobs.size,)}
    for name, shape in wanted.items():
        values = np.asarray(getattr(reading, name))
        if values.shape != shape:
            raise LaboratoryError(f"{name}: wanted a reading of shape {shape}, got {values.shape}")
        if not np.isfinite(np.sum(values)) and not np.all(np.isfinite(values)):  # a sum is quicker
            bad = np.argwhere(~np.isfinite(values))[0].tolist()
            raise LaboratoryError(f"{name}: wanted finite readings, got {values[tuple(bad)]} at {bad}")
    return reading


def _numbers(name: str, values: Array, shape: tuple[int, ...], unit: str, advice: str = "") -> Array:
    array = np.asarray(values)
    if array.shape != shape or not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise ValueError(
            f"{name}: wanted real numbers of shape {shape}, got {array.dtype} of shape {array.shape}{advice}"
        )
    if not np.all(np.isfinite(array)):
        at = np.argwhere(~np.isfinite(array))[0].tolist()
        wanted = f"finite numbers of {unit}" if unit else "finite numbers"
        raise ValueError(f"{name}: wanted {wanted}, got {array[tuple(at)]} at {at}")
    return array.astype(float)
