"""A batch of examples: relaxed side by side, or a few at a time where that is quicker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin, batch_axes
from substrates.room import make_room
from substrates.solvers.sharing import by_devices
from substrates.solvers.solver import Equilibrium, with_known_energy

T = TypeVar("T")

AT_ONCE = 1e5
"""A batch goes to LAPACK at once while its number times the cube of its size stays below: jaxlib uses one thread."""

SPECTRA_AT_ONCE = 2e4
"""The same for eigenvalues and singular values, of which jaxlib 0.10.1 shares out batches from about 3e4 on."""

WORTH_A_COPY = 2e6
"""Parameters times examples from which on every phase of a rule has a copy of the program of a relaxation."""


def in_turn(factorise: Callable[..., Any], at_once: float = AT_ONCE) -> Callable[..., Any]:
    """The same function of square matrices; on a CPU `jax.vmap` maps it over a batch a few examples at a time.

    There a large batched factorisation of jaxlib (0.10 and later) occupies a thread of XLA's pool while it waits for
    others of the same pool. As many independent ones as there are threads, say those of the two nudged phases on a
    machine with two cores, wait for ever. Small ones need no other thread. What is wrapped has no reverse-mode
    derivative.

    Args:
        factorise: of one matrix, or several.
        at_once: the most examples at a time are this over the cube of the size.
    """
    fits = lambda matrices: int(at_once / max(1, *(matrix.shape[-1] for matrix in matrices)) ** 3)
    return lambda *matrices: in_groups(fits, factorise, *matrices)


def spectra_in_turn(decompose: Callable[..., Any]) -> Callable[..., Any]:
    """`in_turn` of what computes eigenvalues or singular values."""
    return in_turn(decompose, SPECTRA_AT_ONCE)


def in_groups(most: int | Callable[[Any], int], function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """function(*arguments); on a CPU `jax.vmap` gives it at most so many examples at a time.

    An iteration under `jax.vmap` goes on with all examples until the slowest has ended: in groups a slow one holds up
    few. It has no reverse-mode derivative.
    """
    if not _for_cpu():
        return function(*arguments)
    arrays, static = eqx.partition(arguments, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    whole = lambda leaves: function(*eqx.combine(jax.tree.unflatten(structure, leaves), static))
    grouped = custom_vmap(lambda *leaves: whole(leaves))

    @grouped.def_vmap
    def rule(count: int, batched: Any, *leaves: Any) -> Any:
        one = lambda moving: whole([next(moving) if b else leaf for b, leaf in zip(batched, leaves, strict=True)])
        moving = [leaf for b, leaf in zip(batched, leaves, strict=True) if b]
        if not moving:
            found = whole(leaves)
            return found, jax.tree.map(lambda _: False, found)
        group = max(1, most if isinstance(most, int) else most([leaf[0] for leaf in moving]))
        if group >= count:
            found = jax.vmap(lambda moving: one(iter(moving)))(moving)
        else:
            found = jax.lax.map(lambda moving: one(iter(moving)), moving, batch_size=None if group == 1 else group)
        return found, jax.tree.map(lambda _: True, found)

    return grouped(*leaves)


def _for_cpu() -> bool:
    """Whether what is being traced will run on a CPU, for all that JAX can tell: it may be the default device beside an
    accelerator.
    """
    config: Any = jax.config
    chosen = config.jax_default_device
    if chosen is None:
        return jax.default_backend() == "cpu"
    return getattr(chosen, "platform", chosen) == "cpu"


def only_where(needed: Bool[Array, ""], stage: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """stage(*arguments) where it is needed, else the last argument; on a CPU a batch does it one by one.

    `jax.vmap` turns a condition into a choice after both branches were computed. Here every example pays for itself
    alone. It has no reverse-mode derivative.
    """
    chosen = lambda needed, *given: jax.lax.cond(needed, lambda: stage(*given), lambda: given[-1])
    return in_groups(1, chosen, needed, *arguments)


def if_any(needed: Bool[Array, ""], stage: Callable[..., T], value: T, *numbers: Array) -> T:
    """stage(value, *numbers) where it is needed, else the value; a batch does it for all, but only if one needs it.

    The compiler takes what always comes out the same out of loops, and would do it whether it is needed or not. So the
    numbers, of which the costly part of the stage is made, are hidden from it.
    """

    def once(carry):
        now, value = carry
        return jnp.zeros_like(now), stage(value, *(jnp.where(now, number, 0) for number in numbers))

    return jax.lax.while_loop(lambda carry: carry[0], once, (needed, value))[1]


class Settles(Protocol):
    """What relaxes: a substrate."""

    @property
    def start(self) -> Callable[..., PyTree]: ...
    @property
    def read(self) -> Callable[..., Array]: ...
    @property
    def relax(self) -> Callable[..., Equilibrium]: ...


def relax_batch(
    substrate: Settles,
    xs: PyTree,
    nudges: Nudge | Pin | None = None,
    starts: PyTree | None = None,
    keys: PRNGKeyArray | None = None,
) -> Equilibrium:
    """`relax` for every example of a batch: `xs`, targets, `starts` and `keys` carry a leading axis.

    Raises ValueError where they do not have as many examples.
    """
    acting: dict[str, PyTree] = {} if nudges is None else {"target": nudges.target}
    if isinstance(nudges, Nudge):
        acting |= {"about": nudges.about, "beta": nudges.beta if jnp.ndim(nudges.beta) == 1 else None}
    same_batch(xs=xs, **acting, starts=starts, keys=keys)
    make_room(substrate, xs, nudges, starts)
    return with_known_energy(_settle_batch(substrate, xs, jax.tree.map(jnp.asarray, nudges), starts, keys))


def same_batch(**trees: PyTree) -> int:
    """How many examples all arrays of the named trees have along their leading axis. Raises ValueError where they
    differ.
    """
    shapes = {name: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for name, tree in trees.items()}
    sizes = {shape[:1] for found in shapes.values() for shape in found}
    if len(sizes) != 1 or () in sizes:
        got = ", ".join(f"{name} of {' and '.join(map(str, found))}" for name, found in shapes.items() if found)
        raise ValueError(
            f"{', '.join(name for name, found in shapes.items() if found)}: wanted the same leading axis of examples "
            f"on all, got {got}; give one of each for every example"
        )
    return sizes.pop()[0]


@eqx.filter_jit
def relax_phases(
    substrate: Settles, xs: PyTree, nudges: Nudge, keys: PRNGKeyArray | None = None, tangent: bool = False
) -> Equilibrium:
    """The free phase of every example of a batch, and then nudged phases from its free state: one program for all.

    A free phase is a nudge of strength 0, so that phases are rounds of one loop. Where much is to be computed each has
    a copy of the program, which takes longer to compile: the nudged ones run beside each other, and what two have in
    common is computed once.

    Args:
        substrate: what settles.
        xs, keys: with a leading axis of examples.
        nudges: targets with a leading axis of examples; beta of shape (phases,) or (phases, batch), the first 0.
        tangent: nudge by the tangent of the cost at the free output.

    Returns equilibria with leading axes of phases and of examples.
    """
    of_nudges = dataclasses.replace(batch_axes(nudges), beta=1 if nudges.beta.ndim == 2 else None)
    axes = (None, 0, of_nudges, None if keys is None else 0, None)
    return by_devices(_settle_phases, _count(xs), axes, 1, substrate, xs, nudges, keys, tangent)


def _settle_phases(
    substrate: Settles, xs: PyTree, nudges: Nudge, keys: PRNGKeyArray | None, tangent: bool
) -> Equilibrium:
    start = jax.vmap(substrate.start, in_axes=(0, None if keys is None else 0))(xs, keys)
    read = jax.vmap(substrate.read)

    def nudge(beta: Array, about: Any) -> Nudge:
        return Nudge(nudges.cost, nudges.target, beta, about)

    def settled(nudge: Nudge | None, state: PyTree) -> Equilibrium:
        axes = (0, batch_axes(nudge), 0, None if keys is None else 0)
        return jax.vmap(lambda x, n, s, k: substrate.relax(x, n, s, key=k), in_axes=axes)(xs, nudge, state, keys)

    def phase(carry: tuple[PyTree, Any, Array], beta: Array) -> tuple[Any, Equilibrium]:
        state, about, free = carry
        found = settled(nudge(beta, about), state)
        choose = lambda new, old: jnp.where(free, new, old)
        about = None if about is None else choose(read(found.state, xs), about)
        return (jax.tree.map(choose, found.state, state), about, jnp.zeros_like(free)), found

    if _count(xs) * sum(map(jnp.size, jax.tree.leaves(substrate))) >= WORTH_A_COPY:
        free = settled(None, start)
        about = read(free.state, xs) if tangent else None
        nudged = (settled(nudge(beta, about), free.state) for beta in nudges.beta[1:])
        return jax.tree.map(lambda *phases: jnp.stack(phases), free, *nudged)
    first = start, read(start, xs) if tangent else None, jnp.ones((), bool)
    return jax.lax.scan(phase, first, nudges.beta)[1]


@eqx.filter_jit
def _settle_batch(
    substrate: Settles, xs: PyTree, nudges: Nudge | Pin | None, starts: PyTree | None, keys: PRNGKeyArray | None
) -> Equilibrium:
    axes = (0, batch_axes(nudges), None if starts is None else 0, None if keys is None else 0)

    def settled(substrate: Settles, *given: PyTree) -> Equilibrium:
        return jax.vmap(lambda x, n, s, k: substrate.relax(x, n, s, key=k), in_axes=axes)(*given)

    return by_devices(settled, _count(xs), (None, *axes), 0, substrate, xs, nudges, starts, keys)


def _count(xs: PyTree) -> int:
    """How many examples a batch has."""
    return jax.tree.leaves(xs)[0].shape[0]
