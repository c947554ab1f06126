"""The steady motion of a driven network: one linear solve per frequency, and Newton's method on what outputs show."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.batching import in_turn
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.generic import Newton
from substrates.solvers.meeting import or_largest
from substrates.solvers.solver import Equilibrium, Solver, Status, System, allowed, default_tolerance, judged, left_over
from substrates.wiring import taken


class Balance(NamedTuple):
    """The forces at every frequency on the real parts of all amplitudes and on the imaginary ones, A s = c.

    Attributes:
        matrices: A, shape (frequencies, 2n, 2n).
        sizes: the sums of the sizes of what A adds up.
        drive: c, shape (frequencies, 2n).
    """

    matrices: Inexact[Array, "frequencies m m"]
    sizes: Float[Array, "frequencies m m"]
    drive: Inexact[Array, "frequencies m"]

    def meeting(self, state: Inexact[Array, "frequencies m"]) -> Float[Array, "frequencies m"]:
        """The sizes of the forces that meet at each amplitude."""
        return _each(self.sizes, jnp.abs(state)) + jnp.abs(self.drive)


class Driven(System, Protocol):
    """What the solver asks of a network beside the contract."""

    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def reads_power(self) -> bool: ...
    def balance(self, x: Any) -> Balance: ...


class Motions(eqx.Module):
    """The balance A s = c of every frequency, inverted.

    Attributes:
        matrices: A, shape (frequencies, 2n, 2n).
        balance: D with which D A D has rows of size 1, shape (frequencies, 2n).
        inverse: of D A D.
        singular: whether some motion needs no force at one of the frequencies, but for rounding.
    """

    matrices: Inexact[Array, "frequencies m m"]
    balance: Inexact[Array, "frequencies m"]
    inverse: Inexact[Array, "frequencies m m"]
    singular: Bool[Array, ""]

    @classmethod
    def of(cls, matrices: Inexact[Array, "frequencies m m"]) -> Motions:
        """The inverses of the balances; zeros where one is singular."""
        rows = jax.vmap(or_largest)(jnp.sum(jnp.abs(matrices), axis=2))
        d = (1 / jnp.sqrt(rows)).astype(matrices.dtype)
        inverse = jax.vmap(in_turn(jnp.linalg.inv))(d[:, :, None] * matrices * d[:, None])
        size = jnp.max(jnp.sum(jnp.abs(inverse), axis=2))
        singular = ~(size <= 1 / (4 * d.shape[1] * float(jnp.finfo(d.dtype).eps)))
        return cls(matrices, d, jnp.where(singular, 0, inverse), singular)

    def solve(self, force: Inexact[Array, "frequencies m"]) -> Inexact[Array, "frequencies m"]:
        """A^-1 c, refined once, so that weak parts are as exact as strong ones."""
        once = lambda c: self.balance * _each(self.inverse, self.balance * c)
        found = once(force)
        return found + once(force - _each(self.matrices, found))

    def between(self, places: Any) -> Inexact[Array, "frequencies k k"]:
        """The block of A^-1 at some places."""
        d = taken(self.balance, places)
        block = self.inverse.at[:, places[:, None], places[None]].get(mode="promise_in_bounds")
        return d[:, :, None] * block * d[:, None]

    def imprecise(
        self, state: Inexact[Array, "frequencies m"], scale: Float[Array, "frequencies m"]
    ) -> Bool[Array, ""]:
        """Whether rounding of the forces that meet moves some amplitude by more than `state_tolerance` of the largest
        of its frequency: the root of the sum of (A^-1_ij eps scale_j)^2.
        """
        d = jnp.abs(self.balance)
        moved = d * jnp.sqrt(_each(jnp.abs(self.inverse) ** 2, (d * scale) ** 2))
        size = jnp.max(jnp.abs(state), axis=1, keepdims=True)
        return ~jnp.all(float(jnp.finfo(d.dtype).eps) * moved <= state_tolerance(d.dtype) * size)


class Answer(eqx.Module):
    """How the amplitudes u of the outputs answer to a pull p on what they show, u = u_0 + S g(p), at each frequency.

    Where amplitudes are shown, g = p. Where mean squares are, g = p u: a pull is an impedance at the output.

    Attributes:
        free: u_0, shape (frequencies, places), real parts of all outputs before imaginary ones.
        between: S, shape (frequencies, places, places).
        power: whether mean squares are shown.
    """

    free: Inexact[Array, "frequencies places"]
    between: Inexact[Array, "frequencies places places"]
    power: bool = eqx.field(static=True)

    def show(self, amplitudes: Inexact[Array, "frequencies places"]) -> Inexact[Array, " shown"]:
        """What outputs show."""
        if not self.power:
            return amplitudes.ravel()
        return jnp.sum((amplitudes**2).reshape(2 * len(amplitudes), -1), axis=0) / 2

    def force(
        self, pull: Inexact[Array, " shown"], amplitudes: Inexact[Array, "frequencies places"]
    ) -> Inexact[Array, "frequencies places"]:
        """g."""
        return jnp.concatenate([pull, pull])[None] * amplitudes if self.power else pull.reshape(amplitudes.shape)

    def to(
        self, pull: Inexact[Array, " shown"]
    ) -> tuple[Inexact[Array, "frequencies places"], Inexact[Array, "shown shown"]]:
        """The amplitudes under a pull, and the derivative of what they show in it."""
        count, places = self.free.shape
        eye = np.eye(places, dtype=self.free.dtype)
        if not self.power:
            slopes = self.between[:, :, None] * np.eye(count, dtype=self.free.dtype)[:, None, :, None]
            return self.free + _each(self.between, self.force(pull, self.free)), slopes.reshape(pull.size, pull.size)
        matrices = eye[None] - self.between * jnp.concatenate([pull, pull])[None, None]
        sides = jnp.concatenate([self.free[:, :, None], self.between], axis=2)
        solved = jax.vmap(in_turn(jnp.linalg.solve))(matrices, sides)
        u, through = solved[..., 0], solved[..., 1:]
        parts = jnp.sum(u[:, :, None] * through * u[:, None], axis=0)
        return u, jnp.sum(parts.reshape(2, pull.size, 2, pull.size), axis=(0, 2))


class DirectSolve(Solver):
    """Settles a driven network by the inverses of its balances, A s = c + P'g, one for each frequency.

    A batch of inputs shares the inverses, which do not depend on what drives. A nudge acts through the pull p that it
    exerts on what outputs show: on amplitudes it is a force, phase-conjugated by the form of the energy; on mean
    squares it is p x_o at every frequency. As the pull depends on what is shown, this is the root of o - o(p(o)), found
    by Newton's method: in one step for quadratic costs of amplitudes and for costs that are linear in what is shown.
    A pin goes to the generic `Newton`.

    A network that resonates without damping has the status `zero_mode`.

    Attributes:
        max_steps: the most steps of Newton's method.
    """

    max_steps: int = 50

    def __call__(
        self, substrate: Driven, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            return Newton()(substrate, x, nudge, start, key)
        balance = substrate.balance(x)
        motions, drive = Motions.of(balance.matrices), balance.drive
        whole = lambda rows: rows.reshape(start.shape)
        state, pushed, size = motions.solve(drive), jnp.zeros_like(drive), jnp.zeros_like(jnp.abs(drive))
        nudged, brought, steps = jnp.zeros((), drive.dtype), None, jnp.ones((), jnp.int32)
        if nudge is not None:
            n = start.shape[-1]
            places = np.concatenate([np.asarray(substrate.outputs, int) + k * n for k in (0, 1)])
            spread = np.eye(2 * n, dtype=start.dtype)[places]
            answer = Answer(taken(state, places), motions.between(places), substrate.reads_power)
            force, steps = self._force(answer, nudge)
            state = motions.solve(drive + force @ spread)
            amplitudes = taken(state, places)
            output = answer.show(amplitudes)
            pushed = answer.force(nudge.pull(output), amplitudes) @ spread
            size = jnp.abs(answer.force(nudge.size(output), amplitudes) @ spread)
            nudged, brought = nudge.energy(output), whole(pushed)
        inner, scale = _each(balance.matrices, state), balance.meeting(state)
        energy = jnp.sum(state * (inner / 2 - drive)) + nudged
        residual = left_over(inner - drive - pushed, scale + size)
        found = judged(whole(state), energy, residual, steps, allowed(start.dtype, nudge, brought, whole(scale)))
        status = Status.where(found.converged & motions.imprecise(state, scale), Status.ill_conditioned, found.status)
        status = Status.where(motions.singular, Status.zero_mode, status)
        return eqx.tree_at(lambda e: e.status, found, status)

    def _force(self, answer: Answer, nudge: Nudge) -> tuple[Inexact[Array, "frequencies places"], Any]:
        """g of the pull that a nudge exerts on what it makes outputs show, and the steps that it took."""
        solve, close = in_turn(jnp.linalg.solve), default_tolerance(answer.free.dtype) / 16
        eye = np.eye(answer.show(answer.free).size, dtype=answer.free.dtype)
        largest = lambda values: jnp.max(jnp.abs(values))

        def advance(carry):
            output, _, _, step = carry
            pull = nudge.pull(output)
            amplitudes, slopes = answer.to(pull)
            shown = answer.show(amplitudes)
            off = largest(nudge.pull(shown) - pull) > close * largest(pull)
            closer = output - solve(eye + slopes @ nudge.curvature(output), output - shown)
            return jnp.where(off, closer, output), answer.force(pull, amplitudes), off, step + 1

        going = lambda carry: carry[2] & (carry[3] < self.max_steps)
        first = (answer.show(answer.free), jnp.zeros_like(answer.free), jnp.asarray(True), jnp.zeros((), jnp.int32))
        _, force, _, steps = jax.lax.while_loop(going, advance, first)
        return force, steps


def _each(
    matrices: Inexact[Array, "frequencies m m"], vectors: Inexact[Array, "frequencies m"]
) -> Inexact[Array, "frequencies m"]:
    """The product of each matrix with its vector."""
    return jnp.einsum("fij,fj->fi", matrices, vectors)
