import os
import stat

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_circuits import circuit, needs_ngspice

from substrates.classical.resistor.network import ResistorNetwork
from substrates.spice import ngspice
from substrates.spice.lines import NetlistError
from substrates.spice.netlist import NEAR_IDEAL_EMISSION_VOLTAGE, NEAR_IDEAL_SATURATION_CURRENT
from substrates.spice.ngspice import operating_point, read_raw, run_deck
from substrates.spice.reader import HARMLESS_OPTIONS

from_netlist, read_netlist = ResistorNetwork.from_netlist, ResistorNetwork.read_netlist
settle = eqx.filter_jit(lambda net, x: net.relax(x))


def ours_and_theirs(net, x, names=None):
    found = settle(net, jnp.asarray(x))
    assert found.converged
    theirs = operating_point(net.to_netlist(x))
    names = [f"n{k}" for k in range(net.n)] if names is None else names
    return np.asarray(net.voltages(found.state, jnp.asarray(x))), np.array([theirs[name] for name in names])


@needs_ngspice
@pytest.mark.parametrize(("kind", "n"), [("linear", 40), ("amplifiers", 12)])
@given(seed=st.integers(0, 2**31))
def test_linear_circuits_agree_with_ngspice(kind, n, seed):
    ours, theirs = ours_and_theirs(*circuit(kind, seed, n))
    np.testing.assert_allclose(ours, theirs, atol=1e-11 * np.abs(theirs).max(), rtol=0)


@needs_ngspice
@pytest.mark.parametrize("n", [12, 40])
@given(seed=st.integers(0, 2**31))
def test_circuits_with_real_diodes_agree_with_ngspice(n, seed):
    ours, theirs = ours_and_theirs(*circuit("real diodes", seed, n))
    np.testing.assert_allclose(ours, theirs, atol=1e-7 * np.abs(theirs).max(), rtol=0)


@needs_ngspice
@given(seed=st.integers(0, 2**31))
def test_ideal_diodes_agree_with_near_ideal_ones_in_ngspice(seed):
    """Each conducting diode is a source of its drop, at most Ve log(1 + I/Is), in series with an ideal one."""
    net, x = circuit("ideal diodes", seed)
    ours, theirs = ours_and_theirs(net, x)
    found = settle(net, jnp.asarray(x))
    current = np.abs(np.asarray(net.diode_currents(found.state, jnp.asarray(x)))).max()
    drop = NEAR_IDEAL_EMISSION_VOLTAGE * np.log1p(2 * current / NEAR_IDEAL_SATURATION_CURRENT)
    leak = len(net.diodes) * NEAR_IDEAL_SATURATION_CURRENT * net.n / float(jnp.min(net.conductance))
    assert np.abs(ours - theirs).max() <= len(net.diodes) * drop + leak


@needs_ngspice
@pytest.mark.parametrize("celsius", [-40.0, 27.0, 85.0])
def test_the_temperature_of_a_diode_is_that_of_ngspice(celsius):
    text = f"t\nI1 0 a 1m\nD1 a 0 m\nR1 a 0 100k\n.model m D(IS=2e-14 N=1.3 EG=1.2 XTI=2)\n.temp {celsius}\n"
    net = from_netlist(text)
    found = settle(net, jnp.zeros(0))
    assert operating_point(text)["a"] == pytest.approx(float(net.voltages(found.state, jnp.zeros(0))[0]), rel=1e-9)


@needs_ngspice
def test_a_deck_with_names_that_mean_something_to_ngspice():
    text = "t\nV1 time 0 2\nR1 time a//b 1k\nR2 a//b $x 1k\nE1 m 0 poly a//b 3\nR3 poly $x 1\nR4 $x gnd 1\nR5 m 0 1\n"
    read = read_netlist(text)
    found = settle(read.network, jnp.zeros(0))
    theirs = operating_point(text)
    np.testing.assert_allclose(
        np.asarray(read.network.voltages(found.state, jnp.zeros(0))), [theirs[name] for name in read.names], rtol=1e-9
    )


LEAKY = """t
V1 s 0 5
R1 s a 5k
D1 a 0 m
D2 a b m
R2 b 0 3k
.model m D(IS=1e-14)
.options tnom=27 {}
.op
.end
"""
BLOCKED = "t\nV1 s 0 5\nR1 s a 1k\nD1 0 a m\n.model m D(IS=1e-14)\n.options gmin={}\n.op\n.end\n"


@needs_ngspice
@pytest.mark.parametrize("option", sorted(HARMLESS_OPTIONS))
def test_options_that_are_passed_over_leave_the_operating_point_of_ngspice(option):
    strange = {"reltol": 1e-9, "abstol": 1e-15, "vntol": 1e-12, "method": "gear", "pivrel": 0.9, "numdgt": 3}
    said = f"{option}={strange.get(option, 2)}" if option not in ("klu", "sparse", "noopiter") else option
    text = LEAKY.format(f"{'' if option == 'reltol' else 'reltol=1e-9'} {said}")
    plain, theirs = run_deck(LEAKY.format("reltol=1e-9")), run_deck(text)
    net = from_netlist(text)
    ours = np.asarray(net.voltages(settle(net, jnp.zeros(0)).state, jnp.zeros(0)))
    for k, name in enumerate(read_netlist(text).names):
        assert theirs[f"v({name})"] == pytest.approx(plain[f"v({name})"], rel=1e-8)
        assert ours[k] == pytest.approx(theirs[f"v({name})"], rel=1e-7)


@needs_ngspice
def test_a_conductance_across_junctions_is_refused_where_it_is_not_negligible():
    """ngspice puts gmin across the blocking diode: 1 mS with the resistor of 1 kilohm halves the 5 V there."""
    theirs = run_deck(BLOCKED.format("1e-3"))["v(a)"]
    assert theirs == pytest.approx(2.5, rel=1e-6)
    for read in (read_netlist, operating_point):
        with pytest.raises(NetlistError, match=r"line 6: option gmin: wanted at most 1e-12 .* a resistor across every"):
            read(BLOCKED.format("1e-3"))
    said = BLOCKED.format("0").replace("\n.op\n", "\nR2 a 0 1k\n.op\n")  # what the message says to do
    net = from_netlist(said)
    assert float(net.voltages(settle(net, jnp.zeros(0)).state, jnp.zeros(0))[1]) == pytest.approx(theirs, rel=1e-6)
    usual = BLOCKED.format("1e-12")
    assert operating_point(usual)["a"] == pytest.approx(run_deck(usual)["v(a)"], rel=1e-8)


@needs_ngspice
def test_without_diodes_nothing_conducts_gmin():
    text = BLOCKED.replace("D1 0 a m", "R2 a 0 1k").format("1e-3")
    assert run_deck(text)["v(a)"] == pytest.approx(2.5, rel=1e-12)
    assert operating_point(text)["a"] == pytest.approx(2.5, rel=1e-12)


@needs_ngspice
def test_commands_in_a_deck_never_reach_ngspice(tmp_path):
    mark = tmp_path / "mark"
    deck = f"*ng_script\nV1 a 0 1\nR1 a 0 1\n*# shell touch {mark}\n*#shell touch {mark}\n.end\n"
    assert operating_point(deck) == {"a": 1.0}
    assert not mark.exists()
    for hostile in (f".control\nshell touch {mark}\n.endc\n", f".include {mark}\n", ".csparam x={1}\n", "A1 a b m\n"):
        with pytest.raises(NetlistError, match="line 4"):
            operating_point("t\nV1 a 0 1\nR1 a 0 1\n" + hostile)


@needs_ngspice
def test_nobodys_initialisation_file_is_read(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / ".spiceinit").write_text(f"shell touch {mark}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert operating_point("t\nV1 a 0 1\nR1 a 0 1\n") == {"a": 1.0}
    assert not mark.exists()


@needs_ngspice
def test_no_operating_point_is_an_error():
    with pytest.raises(RuntimeError, match=r"ngspice found no operating point"):
        operating_point("t\nV1 a 0 1\nV2 a 0 2\nR1 a 0 1\n")


def test_a_missing_ngspice_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install ngspice"):
        operating_point("t\nV1 a 0 1\nR1 a 0 1\n")


def pretend_ngspice(folder, monkeypatch, script):
    program = folder / "ngspice"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ngspice.shutil, "which", lambda name: str(program))


def test_a_hanging_ngspice_is_killed(tmp_path, monkeypatch):
    pretend_ngspice(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid\nexec sleep 60\n")
    with pytest.raises(TimeoutError, match=r"did not end within 0\.5 s"):
        run_deck("t\n", timeout=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_ngspice_that_writes_nothing_is_an_error(tmp_path, monkeypatch):
    pretend_ngspice(tmp_path, monkeypatch, "echo 'Error: no luck' >&2\n")
    with pytest.raises(RuntimeError, match=r"exit status 0.*no luck"):
        run_deck("t\n")


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_timeouts_are_positive_numbers(timeout):
    with pytest.raises(ValueError, match="timeout"):
        operating_point("t\nV1 a 0 1\nR1 a 0 1\n", timeout=timeout)


RAW = (
    b"Title: t\nFlags: real\nNo. Variables: 2\nNo. Points: 1\n"
    b"Variables:\n\t0\tv(a)\tvoltage\n\t1\ti(v1)\tcurrent\nBinary:\n"
)


def test_raw_files():
    values = np.array([0.1, -2.0])
    assert read_raw(RAW + values.tobytes()) == {"v(a)": 0.1, "i(v1)": -2.0}
    for bad in (b"", RAW, RAW + values.tobytes()[:-1], RAW.replace(b"real", b"complex") + values.tobytes()):
        with pytest.raises(RuntimeError, match="without one real point"):
            read_raw(bad)


@needs_ngspice
@pytest.mark.parametrize("options", [{}, {"amplifiers": [(3.0, 2.0)], "rails": (1.0, 0.0)}])
def test_a_layered_network_agrees_with_its_circuit_in_ngspice(options):
    net = ResistorNetwork.layered((4, 8, 3), key=jax.random.key(0), **options)
    x = jax.random.normal(jax.random.key(1), (4,))
    circuit = net.to_circuit()
    theirs = operating_point(net.to_netlist(x))
    state = settle(net, x).state
    amperes = sum(float(jnp.abs(current).sum()) for current in net.currents(state, x))
    drop = NEAR_IDEAL_EMISSION_VOLTAGE * np.log1p(amperes / NEAR_IDEAL_SATURATION_CURRENT)
    amplified = 1 + max((gain for gain, _ in options.get("amplifiers", [])), default=0.0)
    np.testing.assert_allclose(net.read(state, x), [theirs[f"n{k}"] for k in circuit.outputs], atol=drop * amplified)
    assert np.abs(np.asarray(net.read(state, x))).max() > 3 * drop
