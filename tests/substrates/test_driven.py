"""Driven networks: textbook circuits, time integration, energy balance, exact contrasts at any beta, and what fails."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from learning import CrossEntropy, EquilibriumPropagation, ImplicitGradient, SquaredError, evaluate, fit
from substrates import DrivenNetwork, Nudge, Pin, Status
from substrates.classical.driven import pictures
from substrates.substrate import relax_batch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
OMEGA = np.array([0.6, 1.7])
PARAMETERS = "stiffness", "damping", "inertance", "onsite_stiffness", "onsite_damping", "mass", "bias_force"
seeds = st.integers(0, 2**16)
settle = eqx.filter_jit(lambda net, x, nudge=None: net.relax(x, nudge))


def drawn(seed, reading="quadratures", drive="quadratures"):
    """A network of every element, an input and a target."""
    rng = np.random.default_rng(seed)
    net = DrivenNetwork.from_edges(
        SQUARE,
        inputs=[0, 1],
        outputs=[2, 3],
        frequencies=OMEGA,
        stiffness=rng.uniform(0.2, 2, 5),
        damping=rng.uniform(0.05, 0.5, 5),
        inertance=rng.uniform(0.1, 0.6, 5),
        onsite_stiffness=rng.uniform(0.1, 1, 4),
        onsite_damping=rng.uniform(0.05, 0.5, 4),
        mass=rng.uniform(0.5, 2, 4),
        bias_force=rng.normal(size=(2, 2, 4)),
        drive=drive,
        reading=reading,
    )
    x = jnp.asarray(rng.normal(size=net.x_shape))
    return net, x, jnp.asarray(rng.normal(size=net.read(net.initial_state(x), x).shape))


def assembled(net):
    """Z of every frequency, element by element, complex."""
    k, g, m, k0, g0, m0 = (np.asarray(getattr(net, name)) for name in PARAMETERS[:6])
    matrices = []
    for w in np.asarray(net.frequencies):
        z = np.diag(k0 + 1j * w * g0 - w**2 * m0)
        for (i, j), at in zip(SQUARE, k + 1j * w * g - w**2 * m, strict=True):
            z[i, i] += at
            z[j, j] += at
            z[i, j] -= at
            z[j, i] -= at
        matrices.append(z)
    return np.array(matrices)


def forces(net, x):
    bias, x = np.asarray(net.bias_force), np.asarray(x)
    f = bias[:, 0] + 1j * bias[:, 1]
    f[:, list(net.inputs)] += x[:, 0] + 1j * x[:, 1]
    return f


def shown(motion, outputs):
    """What amplitudes show: real parts, then imaginary ones, frequency by frequency."""
    return np.stack([motion[:, outputs].real, motion[:, outputs].imag], axis=1).ravel()


@given(st.floats(0.3, 3), st.floats(0.01, 2), st.floats(0.3, 3))
def test_one_mass_on_a_spring_has_the_resonance_curve_of_textbooks(mass, damping, stiffness):
    omega = np.linspace(0.1, 3, 7)
    net = DrivenNetwork.from_edges(
        [], 1, inputs=[0], outputs=[0], frequencies=omega, onsite_stiffness=1.0, drive="chord", reading="power"
    )
    values = (jnp.array([v]) for v in (stiffness, damping, mass))
    net = eqx.tree_at(lambda n: (n.onsite_stiffness, n.onsite_damping, n.mass), net, tuple(values))
    found = settle(net, jnp.array([1.3]))
    assert found.converged
    exact = 1.3 / (stiffness - mass * omega**2 + 1j * omega * damping)
    np.testing.assert_allclose(net.amplitudes(found.state)[:, 0], exact, rtol=1e-12)
    np.testing.assert_allclose(net.read(found.state, jnp.array([1.3])), [np.sum(np.abs(exact) ** 2) / 2], rtol=1e-12)


def test_a_coil_a_resistor_and_a_capacitor_in_parallel_have_their_impedance():
    """V = I / (1/R + i omega C + 1/(i omega L)), the current I given as f = i omega I."""
    r, inductance, capacity, omega, current = 50.0, 2e-3, 1e-6, 2 * np.pi * np.array([1e3, 3.559e3, 9e3]), 0.01
    net = DrivenNetwork.from_edges(
        [],
        1,
        inputs=[0],
        outputs=[0],
        frequencies=omega,
        onsite_stiffness=1 / inductance,
        onsite_damping=1 / r,
        mass=capacity,
        drive="quadratures",
    )
    x = jnp.asarray(np.stack([0 * omega, omega * current], axis=1)[..., None])
    exact = current / (1 / r + 1j * omega * capacity + 1 / (1j * omega * inductance))
    np.testing.assert_allclose(net.amplitudes(net.relax(x).state)[:, 0], exact, rtol=1e-11)


@given(seeds)
def test_the_motion_solves_the_complex_balance_element_by_element(seed):
    net, x, _ = drawn(seed)
    found = settle(net, x)
    assert found.converged
    exact = np.linalg.solve(assembled(net), forces(net, x)[..., None])[..., 0]
    np.testing.assert_allclose(net.amplitudes(found.state), exact, atol=1e-12 * np.abs(exact).max())
    np.testing.assert_allclose(net.read(found.state, x), shown(exact, [2, 3]), atol=1e-12 * np.abs(exact).max())
    energy = np.sum(np.einsum("fi,fij,fj->f", exact, assembled(net), exact) / 2 - np.sum(forces(net, x) * exact, 1))
    np.testing.assert_allclose(found.energy, energy.real, rtol=1e-11)


def test_a_simulation_in_time_comes_to_the_same_motion_and_mean_squares():
    omega = np.array([1.0, 1.5])  # periods 2 pi and 4 pi / 3: together 4 pi
    net = DrivenNetwork.from_edges(
        [(0, 1)], inputs=[0], outputs=[1], frequencies=omega, stiffness=0.8, damping=0.2, onsite_stiffness=0.4
    )
    x = jnp.array([[1.0], [-0.7]])
    power = net.read(net.relax(x).state, x)
    motion = np.asarray(net.amplitudes(net.relax(x).state))

    def flow(t, y):
        place, speed = y[:2], y[2:]
        pull = 0.8 * (place[1] - place[0]) + 0.2 * (speed[1] - speed[0])
        drive = np.array([x[0, 0] * np.cos(omega[0] * t) + x[1, 0] * np.cos(omega[1] * t), 0.0])
        return np.concatenate([speed, drive - 0.4 * place - 0.1 * speed + np.array([pull, -pull])])

    x = np.asarray(x)
    late = np.linspace(100 * np.pi * 4, 100 * np.pi * 4 + 4 * np.pi, 400, endpoint=False)
    path = solve_ivp(flow, (0, late[-1]), np.zeros(4), t_eval=late, rtol=1e-8, atol=1e-10).y
    steady = np.real(np.exp(1j * late[:, None] * omega) @ motion)
    np.testing.assert_allclose(path[:2].T, steady, atol=1e-5)
    np.testing.assert_allclose(np.mean(path[1] ** 2), power[0], rtol=1e-5)


@given(seeds)
def test_dampers_take_up_what_drives_give_off(seed):
    net, x, _ = drawn(seed)
    state = settle(net, x).state
    taken = sum(np.sum(power, axis=1) for power in net.dissipated(state))
    np.testing.assert_allclose(net.supplied(state, x), taken, rtol=1e-10)
    assert np.all(taken > 0)


@given(seeds, st.floats(0.01, 100))
def test_all_elements_and_drives_times_a_number_leave_the_motion_as_it_is(seed, s):
    net, x, _ = drawn(seed)
    more = eqx.tree_at(lambda n: [getattr(n, name) for name in PARAMETERS], net, replace_fn=lambda leaf: s * leaf)
    one, other = settle(net, x), settle(more, s * x)
    assert other.converged
    np.testing.assert_allclose(other.state, one.state, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(other.residual, one.residual, atol=1e-14)


# learning


def closed_form(net, cost):
    """The loss of the elements, through complex solves that know nothing of real pairs."""
    pairs = np.asarray(SQUARE)

    def loss(values, x, y):
        k, g, m, k0, g0, m0, bias = values
        w = net.frequencies[:, None]
        at, own = (jax.lax.complex(a[None] - w**2 * c[None], w * b[None]) for a, b, c in ((k, g, m), (k0, g0, m0)))
        i, j = pairs.T
        z = jnp.zeros((len(net.frequencies), 4, 4), complex)
        z = z.at[:, i, j].add(-at).at[:, j, i].add(-at).at[:, i, i].add(at).at[:, j, j].add(at)
        z = z.at[:, np.arange(4), np.arange(4)].add(own)
        f = jax.lax.complex(bias[:, 0], bias[:, 1]).at[:, np.array([0, 1])].add(jax.lax.complex(x[:, 0], x[:, 1]))
        motion = jnp.linalg.solve(z, f[..., None])[..., 0][:, np.array([2, 3])]
        parts = jnp.stack([motion.real, motion.imag], axis=1)
        return cost(jnp.sum(parts**2, axis=(0, 1)) / 2 if net.reads_power else parts.ravel(), y)

    return loss


def exact_gradient(net, x, y, cost=None):
    values = tuple(getattr(net, name) for name in PARAMETERS)
    return jax.grad(closed_form(net, SquaredError() if cost is None else cost))(values, x, y)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def apart(found, wanted):
    return np.linalg.norm(flat(found) - flat(wanted)) / np.linalg.norm(flat(wanted))


def in_order(gradient):
    return tuple(getattr(gradient, name) for name in PARAMETERS)


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_the_centred_contrast_of_amplitudes_is_exact_at_any_strength_of_a_constant_pull(beta, cost):
    for seed in range(3):
        net, x, y = drawn(seed)
        y = jax.nn.softmax(y)
        rule = EquilibriumPropagation(jnp.asarray(beta), cost=cost, linearised=True)
        assert apart(in_order(rule(net, x[None], y[None]).gradient), exact_gradient(net, x, y, cost)) < 1e-12


@pytest.mark.parametrize(("reading", "largest"), [("quadratures", 4e-3), ("power", 4e-4)])
def test_costs_that_pull_as_outputs_move_are_learned_up_to_beta_squared(reading, largest):
    net, x, y = drawn(3, reading)
    wanted = exact_gradient(net, x, y)
    assert apart(in_order(ImplicitGradient()(net, x[None], y[None]).gradient), wanted) < 1e-12
    errors = [
        apart(in_order(EquilibriumPropagation(jnp.asarray(beta))(net, x[None], y[None]).gradient), wanted)
        for beta in (largest, largest / 2, largest / 4)
    ]
    assert errors[-1] < 1e-4
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.05)


def states_of(net, x, y, beta):
    free = settle(net, x)
    about = net.read(free.state, x)
    plus, minus = (settle(net, x, Nudge(SquaredError(), y, jnp.asarray(b), about)) for b in (beta, -beta))
    assert plus.converged
    assert minus.converged
    return free, plus, minus


def test_a_nudge_is_the_phase_conjugated_error_and_without_the_conjugate_it_is_wrong():
    """Z X = f - beta conj(X_o - y): the drive of a nudge, and the gradient that the error itself would give."""
    net, x, y = drawn(5)
    beta, z, f = 0.1, assembled(net), forces(net, x)
    free, plus, minus = states_of(net, x, y, beta)
    error = np.zeros((2, 4), complex)
    parts = np.asarray(net.read(free.state, x) - y).reshape(2, 2, 2)
    error[:, 2:] = parts[:, 0] + 1j * parts[:, 1]
    solve = lambda drive: np.linalg.solve(z, drive[..., None])[..., 0]
    np.testing.assert_allclose(net.amplitudes(plus.state), solve(f - beta * np.conj(error)), atol=1e-12)
    np.testing.assert_allclose(net.amplitudes(minus.state), solve(f + beta * np.conj(error)), atol=1e-12)
    pairs = lambda motion: jnp.asarray(np.stack([motion.real, motion.imag], axis=1))
    forgotten = [pairs(solve(f - b * error))[None] for b in (beta, -beta)]
    found = jax.tree.map(lambda leaf: leaf / (2 * beta), net.contrast(*forgotten, x[None]))
    assert apart(in_order(found), exact_gradient(net, x, y)) > 0.5


def test_conjugated_powers_are_the_wrong_observables():
    """What springs store and dampers take up, k |X_i - X_j|^2 / 2 and so on, does not give the gradient."""
    net, x, y = drawn(6)
    beta = 0.1
    _, plus, minus = states_of(net, x, y, beta)
    wanted = exact_gradient(net, x, y)

    def observed(state, square):
        motion, w = np.asarray(net.amplitudes(state)), OMEGA[:, None]
        stretch = motion[:, [i for i, _ in SQUARE]] - motion[:, [j for _, j in SQUARE]]
        kinds = lambda size: [
            np.sum(square(size), axis=0).real / 2,
            np.sum(1j * w * square(size), axis=0).real / 2,
            -np.sum(w**2 * square(size), axis=0).real / 2,
        ]
        return kinds(stretch) + kinds(motion)

    contrast = lambda square: [
        (p - m) / (2 * beta) for p, m in zip(observed(plus.state, square), observed(minus.state, square), strict=True)
    ]
    assert apart(contrast(lambda size: size**2), wanted[:6]) < 1e-12
    powers = contrast(lambda size: np.abs(size) ** 2)
    assert apart(powers, wanted[:6]) > 0.5
    taken_up = contrast(lambda size: np.abs(size) ** 2 / 1j)  # the dissipated power in place of that of dampers
    assert apart(taken_up[1], wanted[1]) > 0.5


def test_the_motion_is_a_saddle_and_nudges_do_not_bound_the_cost():
    above, below = 0, 0
    for seed in range(8):
        net, x, y = drawn(seed)
        free = settle(net, x)
        values = np.linalg.eigvalsh(
            -jax.jacfwd(lambda s, n=net, x=x: n.force(s, x).ravel())(free.state).reshape(16, 16)
        )
        assert np.sum(values > 0) == np.sum(values < 0) == 8
        plus = settle(net, x, Nudge(SquaredError(), y, jnp.asarray(0.1)))
        cost = SquaredError()(net.read(free.state, x), y)
        lower = (plus.energy - free.energy) / 0.1
        above, below = above + int(lower > cost), below + int(lower < cost)
    assert above > 0
    assert below > 0


def test_strong_nudges_of_powers_settle_or_say_so():
    net, x, y = drawn(8, "power")
    for beta in (0.1, 1.0, -0.1):
        found = settle(net, x, Nudge(SquaredError(), jnp.abs(y), jnp.asarray(beta)))
        force = net.total_force(found.state, x, Nudge(SquaredError(), jnp.abs(y), jnp.asarray(beta)))
        assert found.converged == bool(np.max(np.abs(force)) < 1e-10)
    assert settle(net, x, Nudge(SquaredError(), jnp.abs(y), jnp.asarray(0.1))).converged


def test_outputs_are_held_at_a_pin():
    net, x, y = drawn(9)
    found = net.relax(x, Pin(y))
    assert found.converged
    np.testing.assert_allclose(net.read(found.state, x), y, atol=1e-10)


# resonance


def resonator(damping, **options):
    return DrivenNetwork.from_edges(
        [(0, 1)],
        inputs=[0],
        outputs=[1],
        frequencies=[1.0, np.sqrt(3.0)],
        onsite_stiffness=1.0,
        onsite_damping=damping,
        **options,
    )


def test_a_resonance_without_damping_is_said_and_one_of_high_quality_is_exact():
    x = jnp.array([[1.0], [0.5]])
    undamped = settle(resonator(0.0), x)
    assert undamped.status == Status.zero_mode
    assert np.all(np.isfinite(undamped.state))
    assert "resonates" in resonator(0.0).undecided()
    assert resonator(0.1).undecided() == ""
    with pytest.raises(
        RuntimeError,
        match=r"resonates .* no stationary motion exists: .* frequency\. See",
    ):
        EquilibriumPropagation(0.1)(resonator(0.0), x[None], jnp.zeros((1, 1)))
    sharp = settle(resonator(1e-4), x)
    assert sharp.converged
    modes = [0.5 / (1j * 1e-4), 0.5 / (2 + 1j * 1e-4)]  # at omega = 1 the even mode resonates, the odd one lies above
    np.testing.assert_allclose(resonator(1.0).amplitudes(sharp.state)[0], [modes[0] + modes[1], modes[0] - modes[1]])
    assert settle(resonator(1e-11), x).status == Status.ill_conditioned
    assert settle(resonator(0.0).at_frequencies([0.9, 1.2]), x).converged


def test_other_frequencies_are_one_relaxation():
    net = resonator(0.1)
    omega = np.linspace(0.3, 2.4, 9)
    curve = net.at_frequencies(omega)
    motion = curve.amplitudes(curve.relax(jnp.ones((9, 1))).state)
    even, odd = (0.5 / (k - omega**2 + 0.1j * omega) for k in (1, 3))
    np.testing.assert_allclose(motion, np.stack([even + odd, even - odd], axis=1), rtol=1e-12)
    ax = pictures.resonance(omega, motion, ["driven", "read"])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), np.abs(even - odd), rtol=1e-12)
    plt.close("all")
    with pytest.raises(ValueError, match="without bias_force"):
        resonator(0.1, bias_force=0.3).at_frequencies(omega)


# two tones


def sounds(seed, count):
    """Spectra of two vowels with two formants each, of uncertain pitch, and noise."""
    rng = np.random.default_rng(seed)
    omega = np.linspace(0.5, 2.0, 8)
    formants = np.array([[0.8, 1.5], [1.1, 1.8]])
    labels = np.arange(count) % 2
    centres = formants[labels] + 0.05 * rng.normal(size=(count, 2))
    spectra = np.sum(np.exp(-(((omega[None, None] - centres[..., None]) / 0.12) ** 2)), axis=1)
    return omega, np.abs(spectra + 0.1 * rng.normal(size=spectra.shape)), labels


def test_it_learns_to_tell_two_vowels_apart():
    omega, spectra, labels = sounds(0, 40)
    _, others, truth = sounds(3, 200)  # no setting was chosen on these
    rng = np.random.default_rng(2)
    n = 8
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    net = DrivenNetwork.from_edges(
        pairs,
        n,
        inputs=[0],
        outputs=[n - 2, n - 1],
        frequencies=omega,
        stiffness=rng.uniform(0, 0.3, len(pairs)),
        onsite_stiffness=rng.uniform(0.3, 2, n),
        onsite_damping=0.2,
        gain=3.0,
    )
    before = evaluate(net, (others, truth)).accuracy
    rule = EquilibriumPropagation(0.02, cost=CrossEntropy())
    run = fit(
        net,
        rule,
        (spectra, labels),
        optimiser=optax.adam(0.03),
        epochs=60,
        batch_size=20,
        key=jax.random.key(0),
        progress=False,
    )
    assert before < 0.8
    assert evaluate(run.substrate, (others, truth)).accuracy > 0.95
    assert run.substrate.onsite_damping.min() > 0


# words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequencies": [1.0, 1.0]}, "frequencies: wanted different positive numbers"),
        ({"frequencies": 0.0}, "frequencies: wanted different positive numbers"),
        ({"frequencies": np.inf}, "frequencies: wanted finite"),
        ({"stiffness": -1.0}, "stiffness: wanted numbers of 0 or more, got -1.0"),
        ({"onsite_damping": [0.1, 0.1, 0.1, -0.2]}, "onsite_damping: wanted numbers of 0 or more"),
        ({"mass": [1.0]}, r"mass: wanted one number or shape \(4,\)"),
        ({"bias_force": [1.0]}, r"bias_force: wanted one number or shape \(1, 2, 4\)"),
        ({"damping_floor": 1.0}, "damping_floor: wanted a number from 0 to the smallest onsite_damping"),
        ({"drive": "tone"}, "drive: wanted one of amplitudes, quadratures, chord"),
        ({"reading": "phase"}, "reading: wanted one of power, quadratures"),
        ({"outputs": []}, "outputs: wanted at least one node"),
        ({"inputs": [4]}, "inputs: wanted nodes from 0 to 3"),
        ({"gain": np.nan}, "gain: wanted a finite number"),
    ],
)
def test_what_makes_no_network_is_refused(options, message):
    given = {"inputs": [0], "outputs": [2], "frequencies": 1.0} | options
    with pytest.raises(ValueError, match=message):
        DrivenNetwork.from_edges(SQUARE, 4, **given)


def test_inputs_of_every_drive_come_whole_or_flat():
    for drive, shape in (("amplitudes", (2, 2)), ("quadratures", (2, 2, 2)), ("chord", (2,))):
        net, x, _ = drawn(1, "power", drive)
        assert net.x_shape == x.shape == shape
        np.testing.assert_array_equal(net.force_amplitudes(x), net.force_amplitudes(x.ravel()))
        with pytest.raises(ValueError, match="x: wanted shape"):
            net.relax(jnp.ones(3))
    chord, spectrum = (drawn(1, "power", drive)[0] for drive in ("chord", "amplitudes"))
    x = jnp.array([0.3, -0.8])
    np.testing.assert_array_equal(chord.force_amplitudes(x), spectrum.force_amplitudes(jnp.stack([x, x])))


def test_a_graph_of_labels_is_the_network_of_its_numbers():
    graph = nx.Graph()
    for (i, j), k in zip(SQUARE, [1.0, 0.5, 2.0, 0.7, 0.3], strict=True):
        graph.add_edge("abcd"[i], "abcd"[j], stiffness=k)
    mass = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.5}
    named = DrivenNetwork.from_networkx(graph, inputs=["a"], outputs=["d"], frequencies=1.2, mass=mass)
    assert set(named.by_label(named.mass)) == set("abcd")
    assert {label: float(m) for label, m in named.by_label(named.mass).items()} == mass
    number = {label: k for k, label in enumerate(graph.nodes)}
    edges = [(number[a], number[b]) for a, b in graph.edges]
    plain = DrivenNetwork.from_edges(
        edges,
        inputs=[number["a"]],
        outputs=[number["d"]],
        frequencies=1.2,
        stiffness=[graph.edges[edge]["stiffness"] for edge in graph.edges],
        mass=[mass[label] for label in graph.nodes],
    )
    x = jnp.array([[1.0]])
    np.testing.assert_array_equal(named.relax(x).state, plain.relax(x).state)


def test_a_long_chain_carries_waves_of_a_complex_wave_number():
    """Behind the drive the wave number obeys Z = k_0 - omega^2 + i omega g + 4 sin^2(q/2) = 0."""
    net = DrivenNetwork.lattice((120,), inputs=[0], outputs=[119], frequencies=[1.0], onsite_damping=0.3)
    motion = np.asarray(net.amplitudes(settle(net, jnp.array([[1.0]])).state))[0]
    q = 2 * np.arcsin(np.sqrt((1.0 - 0.3j) / 4))
    np.testing.assert_allclose(motion[6:20] / motion[5:19], np.exp(-1j * q), rtol=1e-11)


def test_the_motion_is_drawn_with_its_phases():
    net, x = resonator(0.1), jnp.array([[1.0], [0.5]])
    state = settle(net, x).state
    ax = net.draw(state, x, frequency=1)
    np.testing.assert_allclose(ax.collections[1].get_array(), np.angle(net.amplitudes(state)[1]))
    areas = ax.collections[1].get_sizes()
    size = np.abs(net.amplitudes(state)[1])
    np.testing.assert_allclose(areas[1] / areas[0], np.square(size[1] / size[0]), rtol=1e-6)
    assert net.draw().collections[1].get_array() is None
    with pytest.raises(ValueError, match="frequency: wanted a number from 0 to 1"):
        net.draw(frequency=2)
    plt.close("all")


def test_training_keeps_a_network_passive():
    net = drawn(1)[0]
    names = PARAMETERS[:6]
    far = eqx.tree_at(lambda n: [getattr(n, name) for name in names], net, replace_fn=lambda leaf: leaf - 10)
    near = far.constrained()
    for name in names:
        floor = net.damping_floor if name == "onsite_damping" else 0.0
        np.testing.assert_array_equal(getattr(near, name), np.full(getattr(net, name).shape, floor))
    assert net.damping_floor == net.onsite_damping.min() / 1000


def test_a_task_builds_its_network():
    net = DrivenNetwork.for_task(4, 3, key=jax.random.key(0))
    assert net.input_size == 4
    batch = jnp.ones((2, 4))
    found = relax_batch(net, batch)
    assert np.all(found.converged)
    assert jax.vmap(net.read)(found.state, batch).shape == (2, 3)
