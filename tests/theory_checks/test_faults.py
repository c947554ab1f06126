"""Faults planted in two systems each: the law that names the fault fails, and the sound system passes it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from substrates import Equilibrium, Nudge, Pin, Status, Substrate, fixed
from theory_checks.conformance import CHECKS, hold
from theory_checks.entrance import case_for
from theory_checks.hints import HINTS
from theory_checks.laws_of_capabilities import pinning

X, Y = jnp.array([[0.3], [-0.4]]), jnp.array([[0.5], [0.1]])


class Chain(Substrate):
    """Springs in a row on a hardening ground."""

    stiffness: jax.Array

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(state**4)

    def initial_state(self, x):
        return jnp.zeros_like(self.stiffness)

    def read(self, state, x):
        return state[-1:]

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        return newton(self, x, nudge, start)


class Cells(Substrate):
    """Two cells that excite each other, driven by the sine of their input."""

    bias: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum(state**2) - 0.3 * state[0] * state[1] - jnp.sum(jnp.sin(self.bias + x) * state)

    def initial_state(self, x):
        return jnp.zeros_like(self.bias)

    def read(self, state, x):
        return state[:1]

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        return newton(self, x, nudge, start)


def newton(system, x, nudge, start, steps=12):
    """Newton's method on the force, with a pin held by bordering."""
    start = system.start(x) if start is None else start
    pinned = isinstance(nudge, Pin)

    def balance(both):
        state, push = both[: start.size], both[start.size :]
        force = system.total_force(state, x, nudge)
        if not pinned:
            return force
        shown, back = jax.vjp(lambda s: system.read(s, x), state)
        return jnp.concatenate([force + back(push)[0], shown - nudge.target])

    both = jnp.concatenate([start, jnp.zeros_like(nudge.target)]) if pinned else start
    step = lambda _, b: b - jnp.linalg.solve(jax.jacfwd(balance)(b), balance(b))
    state = jax.lax.fori_loop(0, steps, step, both)[: start.size]
    residual = system.residual(state, x, nudge)
    return Equilibrium(state, system.total_energy(state, x, nudge), residual, jnp.asarray(steps), Status.converged)


SOUND = {"chain": Chain(jnp.array([1.0, 2.0])), "cells": Cells(jnp.array([0.4, -0.3]))}


def faulty(kind, **methods):
    """A class like that of a sound system with other methods, and the system's parameters."""
    like = SOUND[kind]
    changed = type(f"Faulty{type(like).__name__}", (type(like),), methods)
    return changed(**{field.name: getattr(like, field.name) for field in dataclasses.fields(like)})


def base(kind):
    return type(SOUND[kind])


def wrong_sign(kind):
    return faulty(kind, force=lambda self, state, x: jax.grad(self.energy)(state, x))


def factor_two(kind):
    double = lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree)
    return faulty(
        kind,
        measure=lambda self, *given: double(Substrate.measure(self, *given)),
        contrast=lambda self, *given: double(Substrate.contrast(self, *given)),
    )


def not_conservative(kind):
    def force(self, state, x):
        return -jax.grad(self.energy)(state, x) + 0.2 * jnp.stack([state[1], -state[0]])

    return faulty(kind, force=force)


def sloppy(kind):
    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        found = newton(self, x, nudge, start)
        return dataclasses.replace(found, state=found.state * (1 + 1e-6))

    return faulty(kind, relax=relax)


def ignored_clamp(kind):
    return faulty(kind, energy=lambda self, state, x: base(kind).energy(self, state, 0.2 + 0 * x))


def stale(kind):
    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        fresh = newton(self, x, nudge, start)
        kept = fresh if start is None or nudge is not None else newton(self, x, nudge, start, steps=0)
        return dataclasses.replace(kept, residual=0 * kept.residual)

    return faulty(kind, relax=relax)


def swallowed_precision(kind):
    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        found = newton(self, x, nudge, start)
        return dataclasses.replace(found, energy=found.energy.astype(jnp.float32))

    return faulty(kind, relax=relax)


def ignored_pin(kind):
    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        return newton(self, x, nudge if isinstance(nudge, Nudge) else None, start)

    return faulty(kind, relax=relax)


def not_linear(kind):
    def energy(self, state, x):
        return base(kind).energy(self, state, x) + 0.1 * jnp.sum(jax.tree.leaves(self)[0] ** 2) * jnp.sum(state**2)

    return faulty(kind, energy=energy, linear_in_parameters=True)


def uphill(kind):
    """Ends at the top of a bump that stands beside the minimum, where no force is left."""

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        found = newton(self, x, nudge, start)
        return dataclasses.replace(found, state=found.state + 3.0)

    return faulty(kind, relax=relax)


def blind(kind):
    """Shows its input, whatever the state."""
    return faulty(kind, read=lambda self, state, x: 2 * x)


def nothing_in_a_spare_field(kind):
    """An array of NaN that no method uses."""
    like = SOUND[kind]
    spared = type("Spared", (type(like),), {"__annotations__": {"spare": jax.Array}})
    given = {field.name: getattr(like, field.name) for field in dataclasses.fields(like)}
    return spared(**given, spare=jnp.asarray(jnp.nan))


class Remembering:
    """A counter outside the system, as a random generator of its own would be."""

    calls = 0

    @classmethod
    def next(cls):
        cls.calls += 1
        return np.float64(1e-9 * cls.calls)


def hidden_randomness(kind):
    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        found = newton(self, x, nudge, start)
        shift = jax.pure_callback(
            lambda _: Remembering.next(), jax.ShapeDtypeStruct((), jnp.float64), x, vmap_method="sequential"
        )
        return dataclasses.replace(found, state=found.state + shift)

    return faulty(kind, relax=relax)


FAULTS = {
    "wrong sign": (wrong_sign, "force = -dE/dstate"),
    "factor 2": (factor_two, "measure = dF/dtheta"),
    "a force that no energy has": (not_conservative, "reciprocity of the force"),
    "sloppy solver": (sloppy, "free stationarity"),
    "ignored clamp": (ignored_clamp, "the input acts"),
    "stale warm start": (stale, "warm starts end at their own input"),
    "swallowed precision": (swallowed_precision, "precision of the parameters is kept"),
    "ignored pin": (ignored_pin, "pins = said"),
    "hidden randomness": (hidden_randomness, "one key, the same again"),
    "not linear in parameters": (not_linear, "linear in parameters = said"),
    "uphill": (uphill, "energy not above its start"),
    "outputs of the input alone": (blind, "the state shows"),
    "NaN in a spare field": (nothing_in_a_spare_field, "parameters are numbers"),
}


def law_of(system, name):
    (check,) = (check for check in CHECKS if name in check.names)
    found = [law for law in hold(check, case_for(system, X, Y, beta=0.1)) if law.name == name]
    return next((law for law in found if law.verdict == "fails"), found[0])


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_law_that_names_a_fault_finds_it_and_says_where_to_look(fault, kind):
    plant, name = FAULTS[fault]
    found = law_of(plant(kind), name)
    assert found.verdict == "fails", found
    assert found.hint == HINTS[name]


@pytest.mark.parametrize("kind", SOUND)
def test_sound_systems_obey_the_laws_that_name_faults(kind):
    verdicts = {name: law_of(SOUND[kind], name) for _, name in FAULTS.values()}
    said = verdicts.pop("linear in parameters = said")
    assert said.verdict == "does not apply"  # they say nothing
    assert {law.verdict for law in verdicts.values()} == {"holds"}, verdicts
    assert not any(law.hint for law in verdicts.values())


def test_outputs_held_at_zero_are_compared_with_nothing_to_divide_by():
    """An even energy without a pull rests at 0, where its output is held and found."""
    silent = type("Silent", (Cells,), {"relax": Substrate.relax})(jnp.zeros(2))
    case = case_for(silent, jnp.zeros((2, 1)), jnp.zeros((2, 1)), beta=0.1)
    (law,) = pinning(case)
    assert (law.verdict, law.number) == ("holds", 0.0)


def test_an_array_without_a_number_is_named():
    assert law_of(nothing_in_a_spare_field("chain"), "parameters are numbers").compared.endswith(": spare")


def test_a_constant_may_be_infinite_and_a_parameter_may_not():
    """A rail that never clips is a constant at infinity."""
    like = {"stiffness": jnp.array([1.0, 2.0]), "rail": jnp.asarray(jnp.inf)}
    for field, verdict in ((fixed(), "holds"), (dataclasses.field(), "fails")):
        railed = type("Railed", (Chain,), {"__annotations__": {"rail": jax.Array}, "rail": field})
        assert law_of(railed(**like), "parameters are numbers").verdict == verdict


def test_an_energy_that_is_linear_in_its_parameters_may_say_so():
    assert law_of(faulty("chain", linear_in_parameters=True), "linear in parameters = said").verdict == "holds"
