"""Nothing is converged and wrong: circuits and plug-ins in any unit, with parts of very different strength."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from learning import EquilibriumPropagation, SquaredError
from substrates import Nudge, ResistorNetwork, Status, Substrate
from substrates.classical.resistor import Shockley
from substrates.classical.resistor.coordinate_descent import CoordinateDescent
from substrates.classical.resistor.star_mesh import star_mesh, with_held

EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3), (2, 4), (0, 3)])
CLOSE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}
FAR = {np.dtype(np.float64): (1e-24, 1e-12, 1e-6, 1e15), np.dtype(np.float32): (1e-12, 1e-6, 1e-4, 1e12)}
precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])
relax = eqx.filter_jit(lambda system, x, nudge=None, start=None: system.relax(x, nudge, start))


class Wells(Substrate):
    """Springs between numbers, and hardening wells that hold them at x."""

    spring: jax.Array
    well: jax.Array

    def energy(self, state, x):
        i, j = EDGES.T
        held = jnp.sum(self.well * (0.5 * (state - x) ** 2 + 0.25 * state**4))
        return 0.5 * jnp.sum(self.spring * (state[i] - state[j]) ** 2) + held

    def initial_state(self, x):
        return jnp.zeros_like(self.well)

    def read(self, state, x):
        return state[3:]


class Drift(Wells):
    """The same forces without their energy, and one-sided ones."""

    energy = Substrate.energy

    def force(self, state, x):
        i, j = EDGES.T
        through = self.spring * (state[i] - state[j])
        pulls = jnp.zeros_like(state).at[i].add(-through).at[j].add(1.3 * through)
        return pulls - self.well * (2 * (state - x) + state**3)


class Walled(Wells):
    """The same between walls."""

    def bounds(self, x):
        return jnp.full_like(self.well, -0.2), jnp.full_like(self.well, 0.3)


def wells(kind, rng, dtype, decades=1.0):
    draw = lambda n: jnp.asarray(10 ** rng.uniform(-decades / 2, decades / 2, n), dtype)
    return kind(draw(8), draw(5))


def times(system, s):
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(s, leaf.dtype), system)


@precisions
@pytest.mark.parametrize("kind", [Wells, Drift, Walled])
def test_a_plug_in_has_the_same_equilibrium_in_other_units(kind, dtype):
    rng = np.random.default_rng(3)
    system, close = wells(kind, rng, dtype), CLOSE[np.dtype(dtype)]
    x, other, target = (jnp.asarray(rng.uniform(-1, 1, n), dtype) for n in (5, 5, 2))
    here, elsewhere = relax(system, x), relax(system, other)
    pulled = relax(system, x, Nudge(SquaredError(), target, jnp.asarray(0.3, dtype)), here.state)
    assert here.converged
    assert pulled.converged
    for s in FAR[np.dtype(dtype)]:
        nudge = Nudge(SquaredError(), target, jnp.asarray(0.3 * s, dtype))
        for found, wanted in (
            (relax(times(system, s), x), here),
            (relax(times(system, s), x, None, elsewhere.state), here),
            (relax(times(system, s), x, nudge, here.state), pulled),
        ):
            assert found.converged
            np.testing.assert_allclose(found.state, wanted.state, atol=close * np.max(np.abs(wanted.state)))


def test_between_walls_the_start_does_not_decide_whether_it_settles():
    dtype = np.dtype(np.float32)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        system = wells(Walled, rng, dtype)
        x, other = (jnp.asarray(rng.uniform(-1, 1, 5), dtype) for _ in range(2))
        cold = relax(system, x)
        warm = relax(system, x, None, relax(system, other).state)
        assert cold.converged
        assert warm.converged
        np.testing.assert_allclose(warm.state, cold.state, atol=CLOSE[dtype] * np.max(np.abs(cold.state)))


def test_gradients_scale_as_the_inverse_of_the_unit():
    rng = np.random.default_rng(4)
    system = wells(Wells, rng, np.float64)
    x, y = jnp.asarray(rng.uniform(-1, 1, (1, 5))), jnp.asarray(rng.uniform(-1, 1, (1, 2)))
    gradient = eqx.filter_jit(lambda system, beta: EquilibriumPropagation(beta)(system, x, y).gradient.spring)
    wanted = gradient(system, jnp.asarray(0.01))
    for s in FAR[np.dtype(np.float64)]:
        found = s * gradient(times(system, s), jnp.asarray(0.01 * s))
        np.testing.assert_allclose(found, wanted, atol=1e-6 * np.max(np.abs(wanted)))


@precisions
def test_a_group_that_is_held_weakly_is_right_or_said_to_be_undecided(dtype):
    """Springs of 1 between all, wells of 10^-k: forces balance to rounding while the group stands anywhere."""
    x = jnp.asarray([0.3, -0.2, 0.5, 0.1, 0.4], dtype)
    elsewhere = jnp.full(5, -0.7, dtype)
    refused = []
    for k in range(0, 13, 2):
        system = Wells(jnp.ones(8, dtype), jnp.full(5, 10.0**-k, dtype))
        found = relax(system, x, None, elsewhere)
        # together they stand where the wells balance: sum (s - x_i) + 5 s^3 = 0
        place = brentq(lambda s: 5 * s - float(jnp.sum(x)) + 5 * s**3, -1, 1)
        if found.converged:
            np.testing.assert_allclose(found.state, place, atol=CLOSE[np.dtype(dtype)] if k > 7 else 0.6)
            assert abs(float(jnp.mean(found.state)) - place) < (1e-2 if k < 2 else 1e-3)
        else:
            assert found.status in (Status.ill_conditioned, Status.zero_mode)
        refused.append(not bool(found.converged))
    assert not refused[0]
    assert refused[-1] or dtype is np.float64
    blurred = Wells(jnp.ones(8, dtype), jnp.full(5, {np.float64: 1e-10, np.float32: 1e-4}[dtype], dtype))
    assert relax(blurred, x, None, elsewhere).status == Status.ill_conditioned


def test_a_saddle_is_left():
    class Hill(Wells):
        def energy(self, state, x):
            return self.well[0] * (0.25 * (state[0] ** 2 - 1) ** 2 + 0.5 * jnp.sum(state[1:] ** 2))

    found = relax(Hill(jnp.ones(8), jnp.full(5, 1e-15)), jnp.zeros(5))
    assert found.converged
    np.testing.assert_allclose(np.abs(found.state), [1, 0, 0, 0, 0], atol=1e-9)


def test_a_residual_is_printed_as_a_part_of_the_forces_that_meet():
    found = relax(wells(Wells, np.random.default_rng(0), np.float64), jnp.ones(5))
    assert "of the forces that meet" in str(found)
    assert 0 <= float(found.residual) <= 1


# circuits


def exact_voltages(between, grounded, current):
    """Gauss-Jordan elimination in fractions."""
    n = len(grounded)
    rows = [[Fraction(-float(between[i][j])) if i != j else Fraction(0) for j in range(n)] for i in range(n)]
    for i in range(n):
        rows[i][i] = Fraction(float(grounded[i])) - sum(rows[i])
        rows[i].append(Fraction(float(current[i])))
    for k in range(n):
        pivot = next(r for r in range(k, n) if rows[r][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for r in range(n):
            if r != k and rows[r][k]:
                factor = rows[r][k] / rows[k][k]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[k], strict=True)]
    return np.array([float(rows[k][n] / rows[k][k]) for k in range(n)])


eliminated = jax.jit(star_mesh)


@precisions
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_stars_become_meshes_without_rounding_to_speak_of(dtype, seed):
    rng = np.random.default_rng(seed)
    g = 10 ** rng.uniform(-12, 12, (6, 6)) * (rng.uniform(size=(6, 6)) < 0.6)
    between = jnp.asarray(np.triu(g, 1) + np.triu(g, 1).T, dtype)
    grounded = jnp.asarray(10 ** rng.uniform(-12, 12, 6), dtype)
    volts = jnp.asarray(rng.uniform(-1, 1, 6), dtype)
    found, pivots = eliminated(between, grounded, grounded * volts)
    wanted = exact_voltages(np.asarray(between), np.asarray(grounded), np.asarray(grounded * volts))
    assert np.all(np.asarray(pivots) > 0)
    np.testing.assert_allclose(found, wanted, atol=60 * np.finfo(dtype).eps)
    held = jnp.asarray([True, False, False, False, True, False])
    found, _ = eliminated(*with_held(between, grounded, grounded * volts, held, volts))
    np.testing.assert_array_equal(found[held], volts[held])
    shorted = np.asarray(grounded, float).copy()
    shorted[np.asarray(held)] = 1e40
    wanted = exact_voltages(np.asarray(between), shorted, shorted * np.asarray(volts, float))
    np.testing.assert_allclose(found, wanted, atol=60 * np.finfo(dtype).eps)


def chain(conductance, dtype, **options):
    """Input, nodes in a row, ground."""
    m = len(conductance)
    edges = [(k, k + 1) for k in range(m - 1)] + [(m - 1, -1)]
    outputs = list(range(1, m))
    return ResistorNetwork.from_edges(
        edges, inputs=[0], outputs=outputs, conductance=jnp.asarray(conductance, dtype), **options
    )


@precisions
@pytest.mark.parametrize(
    "conductance",
    [[1e-6, 1.0, 1e-6], [1.0, 1e6, 1.0, 1e-6, 1.0], [1e-12, 1e12, 1e-12], [1e-12, 1e12, 1.0, 1e-12, 1e12, 1e-12]],
)
def test_conductances_in_series_divide_the_voltage(conductance, dtype):
    net, x = chain(conductance, dtype), jnp.ones(1, dtype)
    resistance = 1 / np.asarray(conductance)
    wanted = 1 - np.cumsum(resistance)[:-1] / resistance.sum()
    for start in (None, relax(net, -x).state):
        found = relax(net, x, None, start)
        assert found.converged
        np.testing.assert_allclose(found.state, wanted, atol=20 * np.finfo(dtype).eps)


@precisions
@pytest.mark.parametrize("weak", [1e-5, 1e-8, 1e-12])
def test_a_weak_part_beside_a_strong_one_answers_to_its_own_input(weak, dtype):
    g = np.array([1.0, 1.5, weak, 1.5 * weak]) * 1e5
    net = ResistorNetwork.from_edges(
        [(0, 1), (1, -1), (0, 2), (2, -1)], inputs=[0], outputs=[1, 2], conductance=jnp.asarray(g, dtype)
    )
    other = relax(net, jnp.ones(1, dtype))
    found = relax(net, -jnp.ones(1, dtype), None, other.state)
    assert found.converged
    np.testing.assert_allclose(found.state, -0.4, rtol=1e-6)
    beta = weak * 1e5
    nudged = relax(
        net, jnp.ones(1, dtype), Nudge(SquaredError(), jnp.zeros(2, dtype), jnp.asarray(beta, dtype)), found.state
    )
    np.testing.assert_allclose(nudged.state, [1 / (2.5 + weak), 1 / 3.5], rtol=1e-5)


def test_a_weak_part_that_is_off_has_a_large_residual():
    net = ResistorNetwork.from_edges(
        [(0, 1), (1, -1), (0, 2), (2, -1)], inputs=[0], outputs=[1, 2], conductance=jnp.array([1e9, 1e9, 1e-9, 1e-9])
    )
    assert float(net.residual(jnp.array([0.5, -0.5]), jnp.ones(1))) > 0.1
    assert float(net.residual(jnp.array([0.5, 0.5]), jnp.ones(1))) < 1e-15
    weak = Wells(jnp.full(8, 1e-15), jnp.array([1.0, 1.0, 1.0, 1e-12, 1.0]))
    x = jnp.full(5, 0.5)
    right = relax(weak, x).state
    assert float(weak.residual(right.at[3].set(-0.5), x)) > 0.1


@precisions
def test_a_diode_behind_a_load_leaks_what_it_leaks(dtype):
    """5 V through 1 kohm to a, a diode from m to a, 1e12 ohm from m to ground, and 0.2 ohm across the 5 V."""
    net = ResistorNetwork.from_edges(
        [(0, 1), (2, -1), (0, 3), (3, -1)],
        inputs=[0],
        outputs=[2],
        conductance=jnp.asarray([1e-3, 1e-12, 10.0, 10.0], dtype),
        diodes=[(2, 1)],
        diode=Shockley(dtype(1e-14), dtype(0.02585)),
    )
    found = relax(net, jnp.asarray([5.0], dtype))
    assert found.converged
    leak = brentq(lambda m: m * 1e-12 + 1e-14 * np.expm1((m - 5) / 0.02585), 0, 5, xtol=1e-16)
    np.testing.assert_allclose(found.state, [5.0, leak, 2.5], rtol=1e-5)


@precisions
def test_two_diodes_in_series_beside_a_load(dtype):
    net = ResistorNetwork.from_edges(
        [(0, 1), (3, -1), (0, -1)],
        inputs=[0],
        outputs=[2],
        conductance=jnp.asarray([1.0, 1e-3, 1.0], dtype),
        diodes=[(1, 2), (2, 3)],
        diode=Shockley(dtype(1e-14), dtype(0.02585)),
    )
    found = relax(net, jnp.ones(1, dtype))
    drop = lambda i: 2 * 0.02585 * np.log1p(i / 1e-14)
    current = brentq(lambda i: 1 - i * (1 + 1e3) - drop(i), 0, 1e-3, xtol=1e-20)
    assert found.converged
    np.testing.assert_allclose(found.state[2], 1e3 * current, rtol=1e-4)


@precisions
def test_sweeps_over_a_stiff_group_do_not_pass_for_an_operating_point(dtype):
    net = chain([1e-9, 1.0, 1e-9], dtype)
    found = relax(net, jnp.ones(1, dtype))
    swept = net.relax(-jnp.ones(1, dtype), start=found.state, solver=CoordinateDescent(max_sweeps=300))
    assert not swept.converged
    np.testing.assert_allclose(found.state, 0.5, atol=1e-6)


@precisions
def test_layers_that_drift_are_not_said_to_have_arrived(dtype):
    """Hidden nodes held to the inputs by 1e-9 of what joins them to the outputs."""
    net = ResistorNetwork.layered((2, 4, 2), key=jax.random.key(1), dtype=dtype)
    weak = eqx.tree_at(lambda n: n.conductance, net, (1e-9 * (0.1 + net.conductance[0]), 0.1 + net.conductance[1]))
    x = jnp.asarray([0.8, -0.3], dtype)
    assert relax(net, x).converged
    start = tuple(jnp.full_like(layer, 0.05) for layer in net.initial_state(x))
    assert relax(weak, x, None, start).status in (Status.ill_conditioned, Status.out_of_steps)
    held = {np.float64: 1e-5, np.float32: 1e-3}[dtype]  # so well that currents balance where the sweeps stop
    less = eqx.tree_at(lambda n: n.conductance, net, (held * (0.1 + net.conductance[0]), 0.1 + net.conductance[1]))
    assert relax(less, x, None, start).status == Status.ill_conditioned


@precisions
def test_a_diode_between_outputs_that_a_strong_nudge_parts_has_no_drop(dtype):
    net = ResistorNetwork.from_edges(
        [(2, 0), (3, 1), (0, 1)], 4, inputs=[2, 3], outputs=[0, 1], conductance=jnp.asarray([1e-3, 1e-3, 1e-5], dtype),
        diodes=[(0, 1)],
    )  # fmt: skip
    x, target = jnp.asarray([1.0, -1.0], dtype), jnp.asarray([0.8, 0.3], dtype)
    for strength in (1e-2, 1.0, 1e2, 1e4):
        found = relax(net, x, Nudge(SquaredError(), target, jnp.asarray(strength, dtype)))
        wanted = 1.1 * strength / (2 * strength + 2e-3)  # the inputs drive as much in as out
        assert found.converged
        np.testing.assert_allclose(net.read(found.state, x), [wanted] * 2, rtol=CLOSE[np.dtype(dtype)])


def test_a_node_that_nothing_holds_is_a_zero_mode():
    net = chain([1.0, 1.0, 1.0], np.float64)
    cut = eqx.tree_at(lambda n: n.conductance, net, jnp.asarray([0.0, 1.0, 0.0]))
    assert relax(cut, jnp.ones(1)).status == Status.zero_mode


@precisions
@pytest.mark.parametrize("diodes", [(), ((-1, 1),), ((1, 3), (2, 4))])
def test_circuits_have_the_same_operating_point_in_other_units(diodes, dtype):
    rng = np.random.default_rng(5)
    wires = [*EDGES.tolist(), (5, 0), (6, 2), (4, -1), (1, -1)]
    build = lambda g: ResistorNetwork.from_edges(wires, 7, inputs=[5, 6], outputs=[3], conductance=g, diodes=diodes)
    net = build(jnp.asarray(10 ** rng.uniform(-1, 1, len(wires)), dtype))
    x, other = (jnp.asarray(rng.uniform(-1, 1, 2), dtype) for _ in range(2))
    here = relax(net, x)
    potentials = lambda found: found.state[0] if isinstance(found.state, tuple) else found.state
    for s in FAR[np.dtype(dtype)]:
        scaled = eqx.tree_at(lambda n: n.conductance, net, net.conductance * jnp.asarray(s, dtype))
        for start in (None, relax(scaled, other).state):
            found = relax(scaled, x, None, start)
            assert found.converged
            np.testing.assert_allclose(potentials(found), potentials(here), atol=CLOSE[np.dtype(dtype)])
