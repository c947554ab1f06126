"""Products in bfloat16 that are made good in full: against 64 bits, closed forms and bounds of rounding."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_system import SYSTEMS
from hypothesis import given
from hypothesis import strategies as st

from learning import SquaredError
from substrates import (
    HopfieldNetwork,
    Nudge,
    PredictiveCodingNetwork,
    ResistorNetwork,
    SmoothHopfieldNetwork,
    in_bfloat16,
)
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.resistor.layer_descent import LayerDescent
from substrates.solvers.solver import tolerance
from substrates.substrate import relax_phases
from substrates.wiring import Convolution, Dense
from substrates.wiring.layers import lifted
from substrates.wiring.near import near, roughly

IMAGE = (8, 8, 2)
seeds = st.integers(0, 2**31 - 1)
KINDS = {
    "hopfield": lambda key, dtype: HopfieldNetwork.layered((9, 30, 20, 4), key=key, dtype=dtype),
    "hopfield, average pooling": lambda key, dtype: HopfieldNetwork.convolutional(
        IMAGE, (4, 6), 3, key=key, dtype=dtype
    ),
    "hopfield, soft pooling": lambda key, dtype: HopfieldNetwork.convolutional(
        IMAGE, (4, 6), 3, key=key, pooling="soft", dtype=dtype
    ),
    "hopfield, no pooling": lambda key, dtype: HopfieldNetwork.convolutional(
        IMAGE, (4, 6), 3, key=key, pooling=None, gain=0.3, dtype=dtype
    ),
    "predictive coding": lambda key, dtype: PredictiveCodingNetwork.dense(
        (9, 30, 20, 4), key=key, gain=2.0, dtype=dtype
    ),
    "predictive coding, deep": lambda key, dtype: PredictiveCodingNetwork.dense(
        (9, *[12] * 11, 8, 4), key=key, gain=1.5, dtype=dtype
    ),
    "predictive coding, skips": lambda key, dtype: PredictiveCodingNetwork.convolutional(
        IMAGE, (4, 4, 4), (6, 3), key=key, gain=2.0, pooled=(3,), pooling="average", skips=((1, 3),), dtype=dtype
    ),
    "resistors": lambda key, dtype: ResistorNetwork.layered((9, 30, 20, 4), key=key, dtype=dtype),
}


def phases(net, beta, seed=1):
    x = jax.random.uniform(jax.random.key(seed), (3, *net.x_shape), dtype=jnp.float64)
    y = jax.nn.one_hot(jnp.arange(3) % 3, net.shapes[-1][0] if hasattr(net, "shapes") else net.sizes[-1])
    dtype = jax.tree.leaves(net)[0].dtype
    nudge = Nudge(SquaredError(), y.astype(dtype), jnp.asarray([0, beta, -beta], dtype))
    return x, nudge, relax_phases(net, x.astype(dtype), nudge)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, jnp.float32) for kind in KINDS), *((kind, jnp.float64) for kind in ("hopfield", "predictive coding"))],
)
def test_what_is_made_good_is_the_equilibrium_of_the_system_itself(kind, dtype):
    net = KINDS[kind](jax.random.key(0), dtype)
    x, nudge, found = phases(in_bfloat16(net), 0.2)
    assert bool(jnp.all(found.converged))
    exact = phases(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net), 0.2)[2]
    bound = 30 * float(jnp.finfo(dtype).eps) ** 0.75
    for state, wanted in zip(jax.tree.leaves(found.state), jax.tree.leaves(exact.state), strict=True):
        np.testing.assert_allclose(state, wanted, atol=bound * float(jnp.max(jnp.abs(wanted))))
    for phase, beta in enumerate(nudge.beta):
        state = jax.tree.map(lambda leaf, phase=phase: leaf[phase, 0], found.state)
        acting = Nudge(SquaredError(), nudge.target[0], beta)
        limit = tolerance(net, jax.tree.map(lambda leaf: leaf[0, 0], found.state), x[0].astype(dtype), acting)
        assert float(net.residual(state, x[0].astype(dtype), acting)) <= 1.5 * float(limit)


@pytest.mark.parametrize("kind", KINDS)
def test_the_products_are_of_bfloat16_and_only_where_asked_for(kind):
    net = KINDS[kind](jax.random.key(0), jnp.float32)
    x = jnp.ones(net.x_shape, jnp.float32)
    outputs = net.relax(x).state[-1]
    nudge = Nudge(SquaredError(), jnp.zeros_like(outputs), jnp.float32(0.1))
    program = lambda net: str(jax.make_jaxpr(lambda x: net.relax(x, nudge).state)(x))
    assert "bf16" not in program(net)
    multiplied = [line for line in program(in_bfloat16(net)).splitlines() if "dot_general" in line or "conv_" in line]
    assert any(":bf16[" in line for line in multiplied)


@pytest.mark.parametrize(
    ("net", "solver"),
    [
        (HopfieldNetwork.layered((9, 30, 20, 4), key=jax.random.key(0)), BlockDescent(sweeps=6)),
        (PredictiveCodingNetwork.dense((9, 30, 20, 4), key=jax.random.key(0)), ErrorSweep(sweeps=2)),
        (ResistorNetwork.layered((9, 30, 20, 4), key=jax.random.key(0)), LayerDescent(sweeps=4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_of_sweeps_is_off_by_a_part_of_the_way(net, solver):
    net = dataclasses.replace(net, solver=solver)
    x, _, exact = phases(net, 0.2)
    rounded = phases(in_bfloat16(net), 0.2)[2]
    start = jax.vmap(net.start)(x)
    for phase, begin in ((0, start), (1, jax.tree.map(lambda leaf: leaf[0], rounded.state))):
        for at, (one, other, place) in enumerate(zip(exact.state, rounded.state, begin, strict=True)):
            way = float(jnp.max(jnp.abs(other[phase] - place)))
            off = float(jnp.max(jnp.abs(other[phase] - one[phase])))
            # a nudged phase goes on from a free one that is off itself
            assert off <= 2**-5 * way + (2**-5 * float(jnp.max(jnp.abs(one[0] - start[at])))) * (phase > 0)


def test_couplings_that_rounding_makes_unstable_settle_all_the_same():
    # 1 - w^2 is .0026 and that of the rounded coupling 0: h = f + w o, o = w h, so h = f/(1 - w^2)
    weight, field = 0.9987, 1e-3
    assert float(jnp.asarray(weight, jnp.bfloat16)) == 1
    net = HopfieldNetwork(
        (Dense(jnp.full((1, 1), field)), Dense(jnp.full((1, 1), weight))),
        (jnp.zeros(1), jnp.zeros(1)),
        (1,),
        solver=BlockDescent(max_sweeps=50_000, mixed=True),
    )
    found = net.relax(jnp.ones(1))
    assert bool(found.converged)
    np.testing.assert_allclose(found.state[0], field / (1 - weight**2), rtol=1e-6)


def coupling_and_groups(seed, pooling):
    """A coupling, a place (u, v) and one beside it."""
    keys = jax.random.split(jax.random.key(seed), 6)
    draw = lambda key, *shape: (
        jax.random.normal(key, shape) * 10 ** jax.random.uniform(keys[5], (), minval=-3, maxval=3)
    )
    if pooling == "dense":
        coupling, u, v = Dense(draw(keys[0], 7, 5)), (7,), (5,)
    else:
        coupling, u, v = Convolution(draw(keys[0], 3, 3, 2, 3), pooling), (4, 4, 2), (4, 4, 3)
    size = 10 ** jax.random.uniform(keys[4], (), minval=-6, maxval=0)
    u_0, z_0 = draw(keys[1], *u), draw(keys[2], *v)
    return coupling, u_0, z_0, size * draw(keys[3], *u), size * draw(keys[4], *v)


@pytest.mark.parametrize("pooling", ["dense", None])
@given(seed=seeds)
def test_what_rounding_leaves_is_a_part_of_the_change(pooling, seed):
    coupling, u_0, v_0, du, dv = coupling_and_groups(seed, pooling)
    close = near(coupling, roughly(coupling), u_0, lifted(coupling, u_0), v_0)
    sizes = eqx.tree_at(lambda c: c.weight, coupling, jnp.abs(coupling.weight))
    back = lambda coupling, v: coupling.backward(v, u_0)
    # two operands and a result rounded by 2^-8 each, and what 64 bits round of the products that are known
    bound = lambda product, known: (3 * 2**-8 + 2**-12) * product + 1e-13 * known
    np.testing.assert_array_equal(close.forward(u_0), coupling.forward(u_0))
    off = jnp.abs(close.forward(u_0 + du) - coupling.forward(u_0 + du))
    assert bool(jnp.all(off <= bound(sizes.forward(jnp.abs(du)), sizes.forward(jnp.abs(u_0)))))
    off = jnp.abs(back(close, v_0 + dv) - back(coupling, v_0 + dv))
    assert bool(jnp.all(off <= bound(back(sizes, jnp.abs(dv)), back(sizes, jnp.abs(v_0)))))


@pytest.mark.parametrize("pooling", ["max", "average", "soft"])
def test_pooling_is_done_in_full(pooling):
    coupling, u_0, *_ = coupling_and_groups(3, pooling)
    v_0, v = jnp.ones((2, 2, 3)), jnp.full((2, 2, 3), 1.5)
    close = near(coupling, roughly(coupling), u_0, lifted(coupling, u_0), v_0)
    np.testing.assert_allclose(close.forward(u_0), coupling.forward(u_0), rtol=1e-12)
    np.testing.assert_allclose(
        close.backward(v, u_0),
        coupling.backward(v, u_0),
        rtol=0.1,
        atol=0.01 * float(jnp.max(jnp.abs(coupling.backward(v, u_0)))),
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_that_would_lose_what_is_rounded_are_refused_by_name(name):
    net = SYSTEMS[name]()
    if isinstance(net.solver, BlockDescent | ErrorSweep | LayerDescent) and not isinstance(net, SmoothHopfieldNetwork):
        assert in_bfloat16(net).solver.mixed
    elif not isinstance(net, SmoothHopfieldNetwork):
        with pytest.raises(TypeError, match=f"{type(net).__name__}: in_bfloat16: .* got {type(net.solver).__name__}"):
            in_bfloat16(net)


def test_what_is_no_substrate_or_chooses_its_solver_is_refused():
    with pytest.raises(TypeError, match="substrate: wanted a Substrate, got int"):
        in_bfloat16(3)
    with pytest.raises(TypeError, match="SmoothHopfieldNetwork: wanted a system that is given its solver"):
        in_bfloat16(SmoothHopfieldNetwork.layered((2, 3, 1), key=jax.random.key(0)))
