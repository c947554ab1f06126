import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_circuits import circuit, needs_ngspice

from substrates import Nudge, ResistorNetwork, SpiceCircuit, Status
from substrates.classical.resistor.elements import Shockley
from substrates.laboratory.system import ConjugateReadout, PhysicalSystem
from substrates.nudge import SquaredError
from substrates.spice.live import STOP, LiveDeck, assign_roles
from substrates.spice.stability import Stability

DIVIDER = "t\nV1 a 0 0\nR1 a b 1k\nR2 b 0 1k\n"
BEND = (
    "t\nV1 a 0 0\nV2 c 0 0\nR1 a b 1k\nR2 b c 2k\nR3 b 0 3k\nR4 a d 4k\nR5 d b 5k\nD1 d 0 m\n.model m D(IS=1n N=1.5)\n"
)

settle = eqx.filter_jit(lambda net, x, nudge: net.relax(x, nudge))


def with_conductance(net, conductance):
    return eqx.tree_at(lambda net: net.conductance, net, jnp.asarray(conductance))


def divider(**options):
    return SpiceCircuit.from_netlist(DIVIDER, **{"inputs": ["a"], "outputs": ["b"], "epsilon": 0.0, **options})


def bend(**options):
    return SpiceCircuit.from_netlist(BEND, inputs=["a", "c"], outputs=["b", "d"], **{"epsilon": 0.0, **options})


@needs_ngspice
@given(seed=st.integers(0, 2**31))
def test_hard_knobs_are_the_conductances_of_the_network(seed):
    """The same circuit in JAX, free and nudged with both signs, after its knobs were turned."""
    net, x = circuit("real diodes", seed)
    rng = np.random.default_rng(seed)
    knobs = np.asarray(net.conductance) * rng.uniform(0.5, 2.0, len(net.conductance))
    net = with_conductance(net, knobs)
    with SpiceCircuit.from_network(net, epsilon=0.0) as live:
        live.set_knobs(knobs)
        live.clamp(x)
        for beta in (0.0, 1e-3, -1e-6):
            target = rng.normal(size=2)
            live.nudge(target, beta)
            assert live.settle() == Status.converged
            found = settle(net, jnp.asarray(x), Nudge(SquaredError(), jnp.asarray(target), jnp.asarray(beta)))
            assert found.converged
            volts = np.append(np.asarray(net.voltages(found.state, jnp.asarray(x))), 0.0)
            tolerance = 1e-6 * np.abs(volts).max()
            np.testing.assert_allclose(live.read().outputs, net.read(found.state, jnp.asarray(x)), atol=tolerance)
            np.testing.assert_array_equal(live.read().parameters, knobs)
            drops = volts[net.edges[:, 0]] - volts[net.edges[:, 1]]
            np.testing.assert_allclose(live.read_conjugate(), drops**2 / 2, atol=tolerance * np.abs(volts).max())


@needs_ngspice
@given(seed=st.integers(0, 2**31))
def test_soft_conductances_settle_jointly_with_the_voltages(seed):
    """theta = u - epsilon dv^2/2 or the floor, and the voltages are those of the network with conductances theta."""
    net, x = circuit("real diodes", seed)
    rng = np.random.default_rng(seed)
    floor, largest = 1e-6, 2 * float(np.abs(x).max()) ** 2
    epsilon = 1e-5 / largest
    knobs = np.asarray(net.conductance)
    knobs = np.where(rng.random(knobs.size) < 0.2, -knobs, knobs)
    target, beta = rng.normal(size=2), rng.choice([0.0, 1e-3, 1e-5])
    with SpiceCircuit.from_network(net, epsilon=epsilon, floor=floor) as live:
        live.set_knobs(knobs)
        live.clamp(x)
        live.nudge(target, beta)
        status, reading = live.settle(), live.read()
        wanted = knobs - epsilon * live.read_conjugate()
    at_floor = wanted <= STOP * floor
    np.testing.assert_allclose(reading.parameters[~at_floor], wanted[~at_floor], rtol=1e-9)
    assert np.all((reading.parameters[at_floor] >= floor) & (reading.parameters[at_floor] <= 1.01 * floor))
    assert np.all(reading.parameters >= live.spec.parameters.lower)
    np.testing.assert_array_equal(reading.knobs, knobs)
    yielded = with_conductance(net, reading.parameters)
    found = settle(yielded, jnp.asarray(x), Nudge(SquaredError(), jnp.asarray(target), jnp.asarray(beta)))
    assert found.converged
    largest = float(jnp.abs(yielded.voltages(found.state, jnp.asarray(x))).max())
    np.testing.assert_allclose(reading.outputs, yielded.read(found.state, jnp.asarray(x)), atol=1e-6 * largest)
    assert status == Status.converged or np.any(wanted < 3 * epsilon * largest**2)


@needs_ngspice
@pytest.mark.parametrize("beta", [0.0, 1e-3, 1.0, -1e-3, -1.9e-3])
def test_a_nudge_is_a_conductance_to_a_source_at_the_target(beta):
    with divider() as live:
        live.clamp(np.array([1.0]))
        live.nudge(np.array([0.3]), beta)
        assert live.settle() == Status.converged
        assert live.read().outputs[0] == pytest.approx((1e-3 + beta * 0.3) / (2e-3 + beta), rel=1e-9)
        live.nudge(None, 0.0)
        live.clamp(None)
        live.settle()
        assert live.read().outputs[0] == pytest.approx(0.0, abs=1e-12)


@needs_ngspice
def test_an_output_that_is_pushed_harder_than_it_is_held_is_unstable():
    """SPICE solves Kirchhoff's laws there all the same; the circuit would run away."""
    with divider() as live:
        live.clamp(np.array([1.0]))
        live.nudge(np.array([0.3]), -2.1e-3)
        assert live.settle() == Status.unstable
        assert live.status == Status.unstable


@needs_ngspice
def test_conductances_that_yield_too_much_are_unstable():
    """A resistor g(1) between 1 V and a node with a leak: theta - epsilon dv^2 + leak changes sign."""
    text = "t\nV1 a 0 0\nR1 a b 1k\nR2 b 0 2k\n"
    statuses = []
    for epsilon in (1e-6, 4.2e-3):
        with SpiceCircuit(text, inputs=["a"], outputs=["b"], trainable=["R1"], epsilon=epsilon, floor=1e-7) as live:
            live.clamp(np.array([1.0]))
            statuses.append(live.settle())
            theta, drop = live.read().parameters[0], math.sqrt(2 * live.read_conjugate()[0])
            held = theta > 1.01e-7
            assert (live.status == Status.converged) == (theta - held * epsilon * drop**2 + 0.5e-3 > 0)
    assert statuses[0] == Status.converged


ROLES = assign_roles(BEND, ["a", "c"], ["b", "d"], None, 1e9)
NODE = {"0": -1, **{f"n{k}": k for k in range(4)}}
ENDS = np.array([[NODE[name] for name in resistor.nodes] for resistor in ROLES.trainable])
FREE = np.array([k for k in range(4) if k not in {NODE[source.nodes[0]] for source in ROLES.inputs}])
OUTPUTS = np.array([NODE[name] for name in ROLES.outputs])
DIODE = next(element for element in ROLES.deck.elements if element.name[0] == "d")
LAW = Shockley(*map(jnp.asarray, ROLES.deck.models[DIODE.reference].at(27.0, 27.0)))


@jax.jit
def least_curvature(volts, theta, epsilon, beta):
    """The smallest eigenvalue of the Hessian of |u - theta|^2/(2 epsilon) + E + beta C over free nodes and theta."""

    def energy(unknown):
        padded = jnp.append(volts.at[FREE].set(unknown[: FREE.size]), 0.0)
        g, drop = unknown[FREE.size :], padded[ENDS[:, 0]] - padded[ENDS[:, 1]]
        content = jnp.sum(g * drop**2) / 2 + LAW.content(padded[NODE[DIODE.nodes[0]]])
        return jnp.sum(g**2) / (2 * epsilon) + content + beta * jnp.sum(padded[OUTPUTS] ** 2) / 2

    return jnp.linalg.eigvalsh(jax.hessian(energy)(jnp.concatenate([volts[FREE], theta])))[0]


@given(seed=st.integers(0, 2**31), negative=st.booleans())
def test_stability_is_the_sign_of_the_second_derivative_of_the_joint_energy(seed, negative):
    """Brute force, at any voltages; both answers come up."""
    rng = np.random.default_rng(seed)
    volts, theta, epsilon = 0.3 * rng.normal(size=4), rng.uniform(0.1, 1.0, 5), 10 ** rng.uniform(-2, 1)
    beta = rng.uniform(-1.5, 0) if negative else rng.uniform(0, 1)
    padded = np.append(volts, 0.0)
    drop = padded[ENDS[:, 0]] - padded[ENDS[:, 1]]
    least = least_curvature(*map(jnp.asarray, (volts, theta, epsilon, beta)))
    assert Stability(ROLES).holds(volts, theta - epsilon * drop**2, beta) == (least > 0)


@needs_ngspice
def test_conjugate_read_out_gives_the_gradient_of_the_loss():
    """(dv(+)^2 - dv(-)^2) / (2 beta) against finite differences of the loss of the circuit itself."""
    x, y, beta = np.array([2.0, -1.0]), np.array([0.5, 0.2]), 1e-7
    with bend() as live:
        live.clamp(x)
        g = live.read().knobs

        def loss(knobs):
            live.set_knobs(knobs)
            assert live.settle() == Status.converged
            return np.sum((live.read().outputs - y) ** 2) / 2

        steps = 1e-4 * np.diag(g)
        differences = np.array([(loss(g + h) - loss(g - h)) / (2 * h.sum()) for h in steps])
        live.set_knobs(g)
        powers = []
        for sign in (1, -1):
            live.nudge(y, sign * beta / 2)
            assert live.settle() == Status.converged
            powers.append(live.read_conjugate())
        live.nudge(None, 0.0)
    np.testing.assert_allclose(
        (powers[0] - powers[1]) / beta, differences, rtol=1e-5, atol=1e-5 * abs(differences).max()
    )


@needs_ngspice
def test_the_operating_point_depends_on_the_settings_alone():
    """Changed step by step or read anew, in any order: the same bits for the same verbs, the same volts in any case."""
    rng = np.random.default_rng(0)
    verbs = [
        (rng.normal(size=2), rng.uniform(1e-4, 1e-3, 5), rng.normal(size=2), 1e-3 * rng.random()) for _ in range(6)
    ]

    def follow(live, order):
        shown = {}
        for k in order:
            x, u, y, beta = verbs[k]
            live.clamp(x), live.set_knobs(u), live.nudge(y, beta)
            live.settle()
            shown[k] = np.concatenate([live.read().outputs, live.read().parameters])
        return shown

    with bend(epsilon=1e-6) as one, bend(epsilon=1e-6) as other, bend(epsilon=1e-6) as third:
        first, again, reverse = follow(one, range(6)), follow(other, range(6)), follow(third, [5, 3, 1, 0, 2, 4])
    for k in range(6):
        np.testing.assert_array_equal(first[k], again[k])
        np.testing.assert_allclose(first[k], reverse[k], rtol=1e-10)


def test_changes_and_the_whole_deck_say_the_same():
    for epsilon in (0.0, 1e-6):
        live = LiveDeck(ROLES, epsilon, 1e-9)
        before = np.arange(2 + 5 + 2 + 2) + 0.5
        after = before.copy()
        after[[1, 3, 8, 9]] += 0.25
        changes = live.changes(before, after)
        assert len(changes) == 4
        assert len(set(live.text(after).split("\n")) - set(live.text(before).split("\n"))) == 4
        for change, value in zip(changes, after[[1, 3, 8, 9]], strict=True):
            name = change.split()[1]
            assert change.endswith(f"= {value!r}".replace("np.float64(", "").replace(")", ""))
            assert any(line.split()[0] == name and line.endswith(str(value)) for line in live.text(after).split("\n"))
        assert live.changes(before, before) == []


@needs_ngspice
def test_it_is_a_physical_system_with_a_conjugate_read_out():
    with bend(epsilon=1e-6, knob_range=(-1.0, 1.0)) as live:
        assert isinstance(live, PhysicalSystem)
        assert isinstance(live, ConjugateReadout)
        spec = live.spec
        assert (spec.knobs.size, spec.inputs.size, spec.outputs.size, spec.copies) == (5, 2, 2, None)
        assert (spec.knobs.unit, spec.inputs.unit) == ("S", "V")
        assert (spec.knobs.lower, spec.knobs.upper) == (-1.0, 1.0)
        np.testing.assert_allclose(live.read().knobs, 1e-3 / np.arange(1, 6))
        assert "5 knobs, 2 inputs, 2 outputs, 4 nodes" in repr(live)


@needs_ngspice
def test_roles_are_found_in_the_notes_of_a_netlist_and_sources_may_be_turned_around():
    turned = DIVIDER.replace("V1 a 0 0", "V1 0 a 5") + "* groundstate inputs: a\n* groundstate outputs: b\n"
    with SpiceCircuit(turned, epsilon=0.0) as live:
        live.clamp(np.array([1.0]))
        live.settle()
        assert live.read().outputs[0] == pytest.approx(0.5, rel=1e-9)


@needs_ngspice
def test_open_and_layered_networks_come_to_the_bench():
    net = ResistorNetwork.from_edges(
        [(0, 1), (1, -1), (1, 2), (2, -1)], inputs=[0], outputs=[1], conductance=[1, 1, 0, 1]
    )
    with SpiceCircuit.from_network(net, epsilon=0.0, floor=1e-9) as live:
        live.clamp(np.array([1.0]))
        live.settle()
        assert live.read().outputs[0] == pytest.approx(0.5, rel=1e-8)
        np.testing.assert_allclose(live.read().parameters, [1, 1, 1e-9, 1], rtol=1e-12)
    deep = ResistorNetwork.layered((2, 4, 2), key=jax.random.key(0), floor=0.01)
    x = jnp.array([0.5, -1.0])
    with SpiceCircuit.from_network(deep, epsilon=0.0) as live:
        live.clamp(np.asarray(x))
        assert live.settle() == Status.converged
        np.testing.assert_allclose(live.read().outputs, deep.read(deep.relax(x).state, x), atol=1e-4)


@needs_ngspice
def test_verbs_refuse_what_is_wrong_and_change_nothing():
    with bend(epsilon=0.0, floor=1e-6, knob_range=(0.0, 1.0)) as live:
        live.clamp(np.array([1.0, 2.0]))
        live.settle()
        before = live.read()
        for verb, wrong, match in (
            (live.set_knobs, np.full(4, 1e-3), r"u: wanted real numbers of shape \(5,\)"),
            (live.set_knobs, np.full(5, 2.0), "u: wanted knob 0 from 1e-06 to 1 S"),
            (live.set_knobs, np.full(5, 1e-7), "5 knobs are out of range"),
            (live.set_knobs, np.array([1e-3, np.nan, 1, 1, 1]), "finite numbers of S"),
            (live.clamp, np.zeros(3), r"x: wanted real numbers of shape \(2,\)"),
            (live.clamp, np.array([0.0, np.inf]), "finite numbers of V"),
            (lambda y: live.nudge(y, 0.1), np.zeros(1), r"target: wanted real numbers of shape \(2,\)"),
            (lambda beta: live.nudge(np.zeros(2), beta), np.nan, "beta: wanted a finite number"),
            (lambda y: live.nudge(y, 0.1), None, "target: wanted shape"),
        ):
            with pytest.raises(ValueError, match=match):
                verb(wrong)
        live.settle()
        np.testing.assert_array_equal(live.read().outputs, before.outputs)
        np.testing.assert_array_equal(live.read().parameters, before.parameters)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epsilon": -1.0}, "epsilon: wanted a compliance"),
        ({"epsilon": math.nan}, "epsilon: wanted a compliance"),
        ({"floor": 0.0}, "floor: wanted a positive conductance"),
        ({"timeout": 0.0}, "timeout: wanted a positive number"),
        ({"timeout": math.inf}, "timeout: wanted a positive number"),
        ({"inputs": ["b"]}, "inputs: node b is not held by a voltage source"),
        ({"inputs": []}, "inputs: wanted at least one node"),
        ({"outputs": []}, "outputs: wanted at least one node"),
        ({"outputs": ["a"]}, "outputs: node a is held by a voltage source"),
        ({"outputs": ["z"]}, "outputs: the netlist has no node 'z'"),
        ({"outputs": "b"}, "outputs: wanted a list of node names"),
        ({"trainable": ["R7"]}, "trainable: the netlist has no resistor 'r7'"),
        ({"trainable": ["R1", "r1"]}, "trainable: a resistor is named twice"),
        ({"trainable": []}, "trainable: wanted at least one resistor"),
        ({"knob_range": (1.0, 0.0)}, "wanted lower <= upper"),
    ],
)
def test_options_that_make_no_circuit(options, match):
    with pytest.raises(ValueError, match=match):
        divider(**options)
