"""Wrappers follow the contract by construction; what a system cannot do is refused in one place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import EquilibriumPropagation, SquaredError
from substrates import Nudge, Pin, Substrate
from substrates.readout import LinearReadout
from substrates.wrapper import Wrapper, overrides
from theory_checks import SealedSubstrate, SealError


class Springs(Substrate):
    """Springs to the places of the input, numbers to the left of a wall at 1."""

    stiffness: jax.Array

    def energy(self, state, x):
        return jnp.sum(self.stiffness * (state - x) ** 2) / 2

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state

    @property
    def input_size(self):
        return 2

    def training_defaults(self):
        return {"epochs": 7}

    def relax_jointly(self, *arguments, **named):
        return "its own way"


def inside():
    return Springs(jnp.array([1.0, 2.0]))


def test_what_the_contract_gains_wrappers_gain(monkeypatch):
    """A method and an attribute are added to the contract, and overridden inside."""
    monkeypatch.setattr(Substrate, "warmth", lambda self, state, nudge=None: 0.0, raising=False)
    monkeypatch.setattr(Substrate, "colour", "none", raising=False)
    monkeypatch.setattr(Springs, "warmth", lambda self, state, nudge=None: (state, nudge), raising=False)
    monkeypatch.setattr(Springs, "colour", "red", raising=False)
    net = LinearReadout(inside(), jnp.array([[1.0, -1.0]]))
    assert net.colour == "red"
    state, nudge = net.warmth(3.0, nudge=Nudge(SquaredError(), jnp.array([0.5]), 0.1))
    assert state == 3.0
    output = jnp.array([0.2, 0.7])
    np.testing.assert_allclose(nudge.energy(output), 0.1 * 0.5 * (0.2 - 0.7 - 0.5) ** 2, rtol=1e-12)
    for name in ("warmth", "colour"):
        with pytest.raises(SealError, match=name):
            getattr(SealedSubstrate(inside()), name)


def test_everything_that_is_not_the_wrappers_own_is_the_inner_ones():
    net = LinearReadout(inside(), jnp.array([[1.0, -1.0]]))
    assert net.input_size == 2
    assert net.training_defaults() == {"epochs": 7}
    sealed = SealedSubstrate(inside())
    assert sealed.input_size == 2
    assert sealed.training_defaults() == {"epochs": 7}
    assert sealed.relax_jointly(None) == "its own way"


def test_a_wrapper_of_nothing_is_the_system_inside():
    class Transparent(Wrapper):
        pass

    x, y = jnp.array([[0.3, -0.4], [1.0, 0.2]]), jnp.array([[0.1, 0.1], [0.0, 0.5]])
    rule = EquilibriumPropagation(0.1)
    bare, wrapped = rule(inside(), x, y), rule(Transparent(inside()), x, y)
    np.testing.assert_array_equal(bare.gradient.stiffness, wrapped.gradient.inner.stiffness)
    assert isinstance(Transparent(inside()).constrained(), Transparent)


class Deaf(Springs):
    """Can do nothing but settle."""

    holomorphic = False
    pins = False


def test_what_a_system_cannot_do_is_refused_by_its_contract():
    x, y = jnp.array([0.3, -0.4]), jnp.array([0.1, 0.1])
    with pytest.raises(ValueError, match="wanted a Nudge or None, got a Pin; Deaf"):
        Deaf(jnp.ones(2)).relax(x, Pin(y))
    with pytest.raises(ValueError, match=r"beta: wanted a real number, got a complex one; .*no analytic continuation"):
        Deaf(jnp.ones(2)).relax(x, Nudge(SquaredError(), y, 0.1j))
    found = inside().relax(x, Nudge(SquaredError(), y, 0.1j))
    stiffness = np.array([1.0, 2.0])
    np.testing.assert_allclose(found.state, (stiffness * np.array(x) + 0.1j * np.array(y)) / (stiffness + 0.1j))


def test_what_is_said_inside_a_wrapper_is_seen_through_it():
    class Own(Springs):
        def residual(self, state, x, nudge=None):
            return jnp.zeros(())

    for inner, said in ((inside(), False), (Own(jnp.ones(2)), True)):
        net = LinearReadout(inner, jnp.array([[1.0, -1.0]]))
        assert overrides(inner, "residual") == overrides(net, "residual") == said
        assert overrides(net, "relax")
        assert not overrides(net, "stationarity")
