"""What acts on the outputs from outside: a soft nudge, or a pin that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PyTree

Cost = Callable[[Array, Any], Array]


def as_tree(cost: Cost) -> Any:
    """A cost as a pytree, which compiled code accepts as an argument."""
    return cost if isinstance(cost, eqx.Module) else jax.tree_util.Partial(cost)


class SquaredError(eqx.Module):
    """C = 1/2 |output - target|^2; as a nudge, a spring (a conductance) of strength beta to the target."""

    separable: ClassVar[bool] = True
    quadratic: ClassVar[bool] = True

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        return 0.5 * jnp.sum((output - target) ** 2)


class Nudge(eqx.Module):
    """A soft pull on the outputs: it adds beta * cost(read(state, x), target) to the energy.

    With `about`, a free output, the cost is replaced by its tangent there, C(about) + <dC(about), output - about>:
    a current injected, a field, an operator. Then no beta is too negative, and costs are linear in the output.

    Attributes:
        cost: maps (output, target) to a scalar.
        target: what the outputs should show, shape (outputs,).
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
        if self.about is None:
            return self.beta * self.cost(output, self.target)
        slope = self._slope(self.about)
        return self.beta * (self.cost(self.about, self.target) + jnp.sum(slope * (output - self.about)))

    def pull(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """The force on the outputs, -beta dC/doutput."""
        return -self.beta * self._slope(output if self.about is None else self.about)

    def size(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """The sizes of the forces that the nudge brings to each output: |pull| and |beta C''| |output|.

        For the squared error they are |beta| |output - target| and |beta| |output|, whose difference is what rounds.
        """
        return (jnp.abs(self.pull(output)) + jnp.abs(self.curvature(output)) @ jnp.abs(output)).astype(output.dtype)

    def stiffness(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        """beta times the diagonal of d2C/doutput2: what a closed-form solver adds to an output's own stiffness."""
        return jnp.diagonal(self.curvature(output))

    def curvature(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs outputs"]:
        """beta d2C/doutput2."""
        if self.about is not None:
            return jnp.zeros((output.size, output.size), output.dtype)
        return self.beta * jax.jacfwd(self._slope, holomorphic=jnp.iscomplexobj(output))(output)

    def through(self, map_output: Callable[[Array], Array]) -> Nudge:
        """The same nudge as seen from further inside: on z, where output = map_output(z).

        `map_output` must be a pytree (an equinox module) and, for a nudge with `about`, affine.
        """
        if self.about is None:
            return Nudge(_Composed(self.cost, map_output), self.target, self.beta)
        return Nudge(_Tangent(self.cost, map_output), (self.target, self.about), self.beta)

    def _slope(self, output: Inexact[Array, "outputs"]) -> Inexact[Array, "outputs"]:
        return jax.grad(self.cost, holomorphic=jnp.iscomplexobj(output))(output, self.target)


class _Composed(eqx.Module):
    cost: Cost
    map_output: Callable

    def __call__(self, inner, target):
        return self.cost(self.map_output(inner), target)


class _Tangent(eqx.Module):
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


def batch_axes(nudge: Nudge | Pin | None) -> PyTree:
    """The `in_axes` with which `jax.vmap` maps over a nudge: its targets and free outputs, and a beta per example."""

    def axis(path: tuple, leaf: Any) -> int | None:
        name = path[0].name
        return 0 if name in ("target", "about") or (name == "beta" and jnp.ndim(leaf) == 1) else None

    return None if nudge is None else jax.tree_util.tree_map_with_path(axis, nudge)
