"""What acts on the outputs from outside: a soft nudge, or a pin that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Inexact, PyTree

Cost = Callable[[Array, Any], Array]


def as_tree(cost: Cost) -> Any:
    """A cost as a pytree, which compiled code accepts as an argument; raises TypeError for what cannot be called."""
    if not callable(cost):
        raise TypeError(f"cost: wanted a callable (output, target) -> scalar, got {cost!r}; give SquaredError(), say")
    if isinstance(cost, type):
        raise TypeError(f"cost: wanted a cost, got the class {cost.__name__}; give {cost.__name__}()")
    return cost if isinstance(cost, eqx.Module | jax.tree_util.Partial) else jax.tree_util.Partial(cost)


def takes_own_targets(cost: Cost | None) -> bool:
    """Whether a cost says by an attribute `own_targets` that its targets are of a kind of their own."""
    return bool(getattr(cost.func if isinstance(cost, jax.tree_util.Partial) else cost, "own_targets", False))


def fit_target(
    target: Any, output: Any, cost: Cost | None = None, *, name: str = "target", batched: bool = False
) -> Any:
    """The target in the shape of the outputs, which alone is compared with them number by number.

    Looks at shapes and dtypes only, so that it costs nothing in compiled code. For a single output the axis of outputs
    may be missing; numbers become those of the outputs, in their precision. A target that is no array (a tuple, say),
    and whatever is meant for a cost with `own_targets`, is the cost's own business.

    Args:
        target: an array, or anything.
        output: what has the shape and the dtype of the outputs.
        cost: what the target is meant for.
        name: what to call the target in messages.
        batched: whether both have a leading axis of examples.

    Raises ValueError for a target of another shape, or a complex one for real outputs.
    """
    if takes_own_targets(cost) or not eqx.is_array_like(target):
        return target
    array = jnp.asarray(target)
    got = f"got {array.dtype} of shape {array.shape}"
    if jnp.iscomplexobj(array) and not jnp.issubdtype(output.dtype, jnp.complexfloating):
        raise ValueError(f"{name}: wanted real numbers, like the outputs, {got}; give their real parts")
    whole = not jnp.issubdtype(array.dtype, jnp.inexact)
    alone = output.shape[batched:] == (1,) and array.shape == output.shape[:-1] and not (batched and whole)
    if array.shape != output.shape and not alone:
        one = output.shape[batched:]
        wanted = f"(n, {', '.join(map(str, one))}) with n = {output.shape[0]} examples" if batched else f"{one}"
        raise ValueError(
            f"{name}: wanted shape {wanted}, like the outputs, {got}; give one number for each output (labels "
            "one-hot), or let a cost that takes other targets say so by own_targets = True"
        )
    return array.astype(output.dtype).reshape(output.shape)


def check_finite(name: str, target: Any) -> None:
    """Raises ValueError for NaN and infinities in an array whose values are known."""
    for leaf in jax.tree.leaves(target):
        if isinstance(leaf, Tracer) or not eqx.is_array_like(leaf):
            continue
        array = np.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.all(np.isfinite(array)):
            at = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ValueError(f"{name}: wanted finite numbers, got {array[tuple(at)]} at {at}")


class SquaredError(eqx.Module):
    """C = 1/2 |output - target|^2; as a nudge, a spring (a conductance) of strength beta to the target."""

    separable: ClassVar[bool] = True
    quadratic: ClassVar[bool] = True

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        return 0.5 * jnp.sum((output - target) ** 2)

    def slope(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """dC/doutput."""
        return output - target


class Nudge(eqx.Module):
    """A soft pull on the outputs: it adds beta * cost(read(state, x), target) to the energy.

    With `about`, a free output, the cost is replaced by its tangent there, C(about) + <dC(about), output - about>:
    a current injected, a field, an operator. Then no beta is too negative, and costs are linear in the output.

    A nudge of strength 0 is a free phase: the same state, tolerance and status as without a nudge, even where the cost
    or its slope is infinite or not a number. So one compiled program serves free and nudged phases alike.

    A target that is an array must have the shape of the outputs: anything else would be broadcast to them and mean
    something else. One that is not finite ends in the status `not_finite`. A cost that takes other arrays (a label,
    missing numbers) says so by an attribute `own_targets = True`, of its class or of the function, and checks them
    itself; so it does anyway with targets that are no arrays, a tuple, say.

    Attributes:
        cost: maps (output, target) to a scalar; its derivative in the output is its method `slope`, where it has one.
        target: what the outputs should show, shape (outputs,); a number where there is one output.
        beta: the nudging strength, a scalar; complex for an analytic continuation.
        about: None, or an output of shape (outputs,).

    Source: Scellier and Bengio 2017, arXiv 1602.05179.
    """

    cost: Cost = eqx.field(converter=as_tree)
    target: Any
    beta: Any
    about: Any = None

    @property
    def separable(self) -> bool:
        """Whether the cost is a sum over outputs, so that they do not feel each other through it.

        A tangent is; a cost says so itself by an attribute `separable`.
        """
        return self.about is not None or bool(getattr(self.cost, "separable", False))

    @property
    def affine(self) -> bool:
        """Whether the pull is affine in the outputs: that of a tangent, and of a cost with an attribute `quadratic`."""
        return self.about is not None or bool(getattr(self.cost, "quadratic", False))

    def energy(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        """beta C(output), or beta times its tangent about the free output."""
        # what a cost of strength 0 says of an output is not passed back either
        output = jax.lax.select(jnp.equal(self.beta, 0), jax.lax.stop_gradient(output), output)
        about = output if self.about is None else fit_target(self.about, output, name="about")
        value = self.cost(about, fit_target(self.target, about, self.cost))
        if self.about is not None:
            value += jnp.sum(self._slope(about) * (output - about))
        return _times(self.beta, value)

    def pull(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """The force on the outputs, -beta dC/doutput."""
        about = output if self.about is None else fit_target(self.about, output, name="about")
        return -_times(self.beta, self._slope(about))

    def size(
        self, output: Inexact[Array, "outputs"], pull: Inexact[Array, "outputs"] | None = None
    ) -> Inexact[Array, "outputs"]:
        """The sizes of the forces that the nudge brings to each output: |pull| and |beta C''| |output|.

        For the squared error they are |beta| |output - target| and |beta| |output|, whose difference is what rounds.

        Args:
            output: where.
            pull: `pull(output)`, where it is at hand.
        """
        if self.separable:
            pulled, stiffness = self.pull_and_stiffness(output)
            return (jnp.abs(pulled) + jnp.abs(stiffness * output)).astype(output.dtype)
        pull = self.pull(output) if pull is None else pull
        return (jnp.abs(pull) + jnp.abs(self.curvature(output)) @ jnp.abs(output)).astype(output.dtype)

    def stiffness(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """beta times the diagonal of d2C/doutput2: what a closed-form solver adds to an output's own stiffness."""
        return self.pull_and_stiffness(output)[1]

    def pull_and_stiffness(
        self, output: Inexact[Array, "outputs"]
    ) -> tuple[Inexact[Array, "outputs"], Inexact[Array, "outputs"]]:
        """`pull` and `stiffness`, in one go where outputs do not feel each other."""
        if self.about is not None:
            return self.pull(output), jnp.zeros_like(output)
        if not self.separable:
            return self.pull(output), jnp.diagonal(self.curvature(output))
        slope, stiffness = jax.jvp(self._slope, (output,), (jnp.ones_like(output),))
        return -_times(self.beta, slope), _times(self.beta, stiffness)

    def curvature(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs outputs"]:
        """beta d2C/doutput2."""
        if self.about is not None:
            return jnp.zeros((output.size, output.size), output.dtype)
        along = lambda direction: jax.jvp(self._slope, (output,), (direction,))[1]
        return _times(self.beta, jax.vmap(along, out_axes=-1)(np.eye(output.size, dtype=output.dtype)))

    def through(self, map_output: Callable[[Array], Array]) -> Nudge:
        """The same nudge as seen from further inside: on z, where output = map_output(z).

        `map_output` must be a pytree (an equinox module) and, for a nudge with `about`, affine.
        """
        if self.about is None:
            return Nudge(_Composed(self.cost, map_output), self.target, self.beta)
        return Nudge(_Tangent(self.cost, map_output), (self.target, self.about), self.beta)

    def _slope(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        target = fit_target(self.target, output, self.cost)
        if hasattr(self.cost, "slope"):
            return self.cost.slope(output, target)
        return jax.grad(self.cost, holomorphic=jnp.iscomplexobj(output))(output, target)


def _product(beta: Inexact[Array, ""], value: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """beta value in the precision of the value, complex where beta is."""
    dtype = jnp.result_type(value)
    return jnp.asarray(beta, np.result_type(dtype, np.complex64) if jnp.iscomplexobj(beta) else dtype) * value


@jax.custom_jvp
def _times(beta: Inexact[Array, ""], value: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """beta value, and 0 where beta is 0, whatever the value."""
    product = _product(beta, value)
    return jax.lax.select(jnp.equal(beta, 0), jnp.zeros_like(product), product)


def _times_along(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Array, Any]:
    (beta, value), (of_beta, of_value) = primals, tangents
    still = jax.custom_derivatives.SymbolicZero
    moved = jnp.zeros_like(_product(beta, value)) if isinstance(of_value, still) else _times(beta, of_value)
    return _times(beta, value), moved if isinstance(of_beta, still) else moved + _product(of_beta, value)


_times.defjvp(_times_along, symbolic_zeros=True)


class _Composed(eqx.Module):
    own_targets: ClassVar[bool] = True

    cost: Cost
    map_output: Callable

    def __call__(self, inner, target):
        output = self.map_output(inner)
        return self.cost(output, fit_target(target, output, self.cost))


class _Tangent(eqx.Module):
    own_targets: ClassVar[bool] = True

    cost: Cost
    map_output: Callable

    def __call__(self, inner, target_and_about):
        target, about = target_and_about
        return Nudge(self.cost, target, 1.0, about).energy(self.map_output(inner))


class Pin(eqx.Module):
    """Holds the outputs at a target of shape (outputs,), as contrastive and coupled learning do.

    The equilibrium is the root of (force + (dread/dstate)' multiplier, read - target).
    """

    target: Any


class HeldBySprings(eqx.Module):
    """A pin as an augmented Lagrangian has it, in place of a nudge: the energy m (o - target) + r (o - target)^2 / 2.

    The multiplier m grows by r (o - target) from round to round, until the springs are not stretched.

    Attributes:
        target: what the outputs should show.
        multiplier: m of each output, a force.
        strength: r of each output, a stiffness.

    Source: Rockafellar 1976, "Augmented Lagrangians and applications of the proximal point algorithm in convex
    programming".
    """

    affine: ClassVar[bool] = True

    target: Inexact[Array, "outputs"]
    multiplier: Inexact[Array, "outputs"]
    strength: Inexact[Array, "outputs"]

    def energy(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        """m (o - target) + r (o - target)^2 / 2, over all outputs."""
        gap = output - self.target
        return jnp.sum(self.multiplier * gap + self.strength * gap**2 / 2)

    def pull(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """-(m + r (o - target))."""
        return -(self.multiplier + self.strength * (output - self.target))

    def curvature(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs outputs"]:
        """r on the diagonal."""
        return jnp.diag(self.strength)


class NudgeRefusedError(ValueError, TypeError):
    """A system or a solver was asked for a kind of nudge, or for a number of one, that means nothing to it."""


def batch_axes(nudge: Nudge | Pin | None) -> PyTree:
    """The `in_axes` with which `jax.vmap` maps over a nudge: its targets and free outputs, and a beta per example."""

    def axis(path: tuple, leaf: Any) -> int | None:
        name = path[0].name
        return 0 if name in ("target", "about") or (name == "beta" and jnp.ndim(leaf) == 1) else None

    return None if nudge is None else jax.tree_util.tree_map_with_path(axis, nudge)
