import re
import sys
import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_circuits import KINDS, circuit

from substrates.classical.resistor import ResistorCircuit
from substrates.classical.resistor.elements import Shockley
from substrates.classical.resistor.network import ResistorNetwork
from substrates.spice import deck as deck_module
from substrates.spice.deck import NetlistError, parse_deck, parse_number, write_deck

from_netlist, read_netlist = ResistorNetwork.from_netlist, ResistorNetwork.read_netlist
to_netlist = ResistorCircuit.to_netlist
settle = eqx.filter_jit(lambda net, x: net.relax(x))


def node_voltages(net, x):
    found = settle(net, jnp.asarray(x))
    assert found.converged
    return np.asarray(net.voltages(found.state, jnp.asarray(x)))


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31))
def test_a_circuit_survives_the_round_trip(kind, seed):
    net, x = circuit(kind, seed)
    read = read_netlist(to_netlist(net, x))
    back = read.network
    assert read.names == tuple(f"n{k}" for k in range(net.n))
    np.testing.assert_array_equal(read.x, x)
    assert (back.n, back.inputs, back.outputs, back.rails) == (net.n, net.inputs, net.outputs, net.rails)
    for name in ("edges", "diodes", "current_sources", "voltage_sources", "controlled_sources"):
        np.testing.assert_array_equal(getattr(back, name), getattr(net, name))
    for name in ("rail_voltage", "source_voltage", "source_current", "gain", "reverse_gain"):
        np.testing.assert_array_equal(getattr(back, name), getattr(net, name))
    np.testing.assert_allclose(back.conductance, net.conductance, rtol=3e-16)  # the reciprocal of a reciprocal
    assert (back.diode is None) == (net.diode is None)
    if net.diode is not None:
        np.testing.assert_array_equal(back.diode.saturation_current, net.diode.saturation_current)
        np.testing.assert_allclose(back.diode.emission_voltage, net.diode.emission_voltage, rtol=1e-15)


@pytest.mark.parametrize("kind", ["linear", "real diodes", "ideal diodes"])
@given(seed=st.integers(0, 2**31))
def test_a_circuit_read_back_has_the_same_voltages(kind, seed):
    net, x = circuit(kind, seed)
    back = from_netlist(to_netlist(net, x))
    voltages = node_voltages(net, x)
    np.testing.assert_allclose(node_voltages(back, x), voltages, atol=1e-10 * np.abs(voltages).max())


@pytest.mark.parametrize("kind", KINDS)
def test_writing_what_was_read_gives_the_same_text(kind):
    text = to_netlist(*circuit(kind, 3))
    options = next(line for line in text.splitlines() if line.startswith(".options")).split(" ", 2)[2]
    assert write_deck(parse_deck(text), options) == text


def test_resistors_of_zero_conductance_stay_trainable():
    net = ResistorNetwork.from_edges(
        [(0, 1), (0, 2), (1, 2), (2, -1)], 3, inputs=[0, 1], outputs=[2], conductance=np.array([0.0, 2.0, 0.0, 2.0])
    )
    text = to_netlist(net, [1.0, 5.0])
    assert "* groundstate open: r0 n0 n1" in text
    back = from_netlist(text)
    np.testing.assert_array_equal(back.edges, net.edges)
    np.testing.assert_array_equal(back.conductance, [0.0, 2.0, 0.0, 2.0])
    assert node_voltages(back, [1.0, 5.0])[2] == pytest.approx(0.5, rel=1e-14)


def test_a_netlist_written_by_hand():
    text = """A voltage divider, loaded
* a comment
Vin IN 0 DC 10V AC 1
R1 in Mid 1.5kOhm ; upper
R2 mid
+ gnd 3K $ lower
I1 0 mid 2mA
E1 out 0 (mid, 0) 2.0
Rload out 0 1MEG
.op
.print op v(mid)
.tran 1n 1u
.end

* nothing after the end
"""
    read = read_netlist(text, inputs=["in"], outputs=["OUT"])
    assert read.names == ("in", "mid", "out")
    np.testing.assert_array_equal(read.x, [10.0])
    mid = (10 / 1500 + 2e-3) / (1 / 1500 + 1 / 3000)
    np.testing.assert_allclose(node_voltages(read.network, read.x), [10.0, mid, 2 * mid], rtol=1e-13)


def test_without_names_sources_to_ground_are_rails():
    net = from_netlist("t\nV1 a 0 2\nV2 0 b 3\nR1 a c 1\nR2 b c 1\nR3 c 0 1\n", outputs=["c"])
    assert net.inputs == ()
    assert dict(zip(net.rails, np.asarray(net.rail_voltage).tolist(), strict=True)) == {0: 2.0, 1: -3.0}
    assert node_voltages(net, np.zeros(0))[2] == pytest.approx(-1 / 3, rel=1e-14)


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("1", 1.0), ("-2.5", -2.5), ("+.5", 0.5), ("3.", 3.0), ("1e3", 1e3), ("1E-3", 1e-3), ("2d2", 200.0),
        ("1f", 1e-15), ("1p", 1e-12), ("1n", 1e-9), ("1u", 1e-6), ("1m", 1e-3), ("1k", 1e3), ("1meg", 1e6),
        ("1MEG", 1e6), ("1M", 1e-3), ("1g", 1e9), ("1T", 1e12), ("2mil", 50.8e-6), ("4.7kOhm", 4.7e3), ("10uF", 1e-5),
        ("5V", 5.0), ("1A", 1.0), ("2e3k", 2e6), ("1e", 1.0), ("3megohms", 3e6), ("0.1u", 1e-7),
    ],
)  # fmt: skip
def test_numbers(token, value):
    assert parse_number(token) == value


@pytest.mark.parametrize("token", ["", "k", "1k5", "1..2", "nan", "inf", "0x10", "1e400", "1_000", "--1", "1e+", "²"])
def test_what_is_no_number(token):
    with pytest.raises(ValueError, match="wanted a number"):
        parse_number(token)


GOOD = "title\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("R3 b 0", "wanted: name node node ohms"),
        ("R3 b 0 1k 2k", "wanted: name node node ohms"),
        ("R3 b 0 0", "positive resistance"),
        ("R3 b 0 -1k", "positive resistance"),
        ("R3 b 0 nan", "wanted a number"),
        ("R3 b 0 inf", "wanted a number"),
        ("R3 b 0 1e-320", "positive resistance"),
        ("R3 b b 1k", "both ends"),
        ("R1 b 0 1k", "already there, on line 3"),
        ("r1 b 0 1k", "already there, on line 3"),
        ("V2 a 0 2", "already held"),
        ("V2 c 0 SIN(0 1 1k)", "wanted: name plus minus"),
        ("D1 a b", "wanted: name anode cathode model"),
        ("D1 a b nomodel", "no .model card"),
        ("E1 c 0 a 2", "wanted: name plus minus control-plus control-minus gain"),
        ("E1 c 0 POLY(1) a 0 0 1", "wanted: name plus minus"),
        ("E1 c 0 VALUE={V(a)*2}", "refused"),
        ("F1 b 0 V1 2", "backward half"),
        ("F1 b 0 V9 2", "no voltage source"),
        ("B1 c 0 V=V(a)*2", "none of R, V, I, D, E, F"),
        ("X1 a b sub", "none of R, V, I, D, E, F"),
        ("C1 a b 1u", "none of R, V, I, D, E, F"),
        ("Q1 a b c m", "none of R, V, I, D, E, F"),
        (".include /etc/passwd", "refused"),
        (".lib models.lib tt", "refused"),
        (".control", "refused"),
        (".param x=1", "refused"),
        (".subckt s a b", "refused"),
        (".ic v(a)=1", "refused"),
        (".options rshunt=1", "is not known"),
        (".options gshunt=1", "is not known"),
        (".options temp=-300", "absolute zero"),
        (".options gmin", "wanted a number"),
        (".options gmin=-1e-15", "gmin: wanted siemens, at least 0"),
        (".options gmin 1e-3", "wanted a number"),
        (".temp 20 30", "one temperature"),
        (".model m D(IS=1e-14 RS=5)", "beyond Shockley's law"),
        (".model m D(IS=-1)", "IS > 0"),
        (".model m D(N=0)", "N between"),
        (".model m NPN(BF=100)", "diode model"),
        (".model m D(IS=)", "value after"),
        ("R3 b 0 'x'", "refused"),
        ("R3 b 0 `ls`", "refused"),
        ("R3 b 0 1k\x00", "refused"),
        ("R3 bé 0 1k", "refused"),
        ("(,)", "punctuation"),
        (f"R3 {'b' * 65} 0 1k", "at most 64"),
        (f"R3 b 0 1k {' ' * 2000}", "at most 2000"),
        ("* groundstate secrets: a", "note is one of"),
        ("* groundstate open: q1 a b", "open resistor"),
    ],
)
def test_a_bad_line_is_named(line, problem):
    with pytest.raises(NetlistError, match=problem) as caught:
        from_netlist(GOOD + line + "\n", outputs=["b"])
    assert "line 5" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at least one node"),
        ("title\n", "at least one node"),
        ("title\n+ R1 a b 1\n", "line 2: there is no line"),
        ("t\nV1 a 0 1\n.end\nR1 a 0 1\n", "line 4: wanted nothing after .end"),
        ("t\nV1 a 0 1\nR1 a 0 1\nR2 c d 1\n", "nodes a, c, d"),
        ("t\nV1 a 0 1\nR1 a 0 1\nV2 b a 1\nV3 b 0 3\n", "nodes a, b"),
        (
            "t\nV1 a 0 1\nR1 a 0 1\nD1 a b m\nD2 b 0 i\nR2 b 0 1\n.model m D\n.model i D\n* groundstate ideal: i",
            "^netlist, line 5: d2 follows the diode model i and d1 follows m",
        ),
    ],
)
def test_a_deck_that_is_no_circuit(text, problem):
    with pytest.raises(NetlistError, match=problem):
        from_netlist(text)


def test_names_of_inputs_and_outputs():
    with pytest.raises(NetlistError, match="no node 'q'; it has a, b"):
        from_netlist(GOOD, outputs=["q"])
    with pytest.raises(NetlistError, match="input b is not held"):
        from_netlist(GOOD, inputs=["b"])
    with pytest.raises(NetlistError, match="a list of node names"):
        from_netlist(GOOD, outputs="b")
    with pytest.raises(NetlistError, match="twice"):
        from_netlist(GOOD, outputs=["b", "B"])
    with pytest.raises(TypeError, match="wanted text, got bytes"):
        from_netlist(GOOD.encode())


def test_input_of_the_wrong_shape():
    net, _ = circuit("linear", 0)
    for x in (np.zeros(3), np.zeros((1, 2)), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match=r"x: wanted (2 finite volts|shape \(2,\))"):
            to_netlist(net, x)


def test_a_title_that_is_an_element_is_pointed_out():
    with pytest.warns(UserWarning, match="the first line is the title"):
        from_netlist("R1 a b 1k\nV1 a 0 1\nR2 a 0 1k\n")


def test_models_and_temperature():
    text = "t\nV1 a 0 1\nR1 a b 1k\nD1 b 0 m\nD2 0 b m2\n.model m D(IS=1p N=1.5)\n.model m2 D IS=1p N = 1.5 CJO=2p\n"
    law = from_netlist(text).diode
    assert isinstance(law, Shockley)
    kelvin = 1.38064852e-23 / 1.6021766208e-19
    assert float(law.emission_voltage) == pytest.approx(1.5 * kelvin * 300.15, rel=1e-14)
    assert float(law.saturation_current) == 1e-12
    warm = from_netlist(text + ".temp 60\n").diode
    assert float(warm.emission_voltage) == pytest.approx(1.5 * kelvin * 333.15, rel=1e-14)
    assert float(warm.saturation_current) > 1e-12
    same = from_netlist(text + ".options temp=60 tnom=60\n").diode
    assert float(same.saturation_current) == pytest.approx(1e-12, rel=1e-14)
    with pytest.raises(NetlistError, match="line 5: d2 follows the diode model m2 and d1 follows m"):
        from_netlist(text.replace("N = 1.5", "N = 2"))


def parses_or_says_why(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about titles
        try:
            read = read_netlist(text)
        except NetlistError:
            return
    assert read.network.n == len(read.names)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    parses_or_says_why("title\n" + text)
    parses_or_says_why(text)


WORDS = """r1 r2 v1 v2 i1 d1 d2 e1 f1 0 gnd a b c 1 -1 0.0 1k 1e-3 1e308 1e-308 nan = ( ) , m D .model .temp .options
.end is n tnom + * ; $ { ' dc ac * groundstate inputs: open: ideal: nodes:"""


@given(st.lists(st.lists(st.sampled_from(re.findall(r"\S+", WORDS)), max_size=7).map(" ".join), max_size=8))
def test_any_lines_of_likely_words_are_read_or_refused(lines):
    parses_or_says_why("\n".join(["title", *lines]))


@given(st.data())
def test_a_damaged_netlist_is_read_or_refused(data):
    text = to_netlist(*circuit(data.draw(st.sampled_from(KINDS)), 1))
    place = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 40))
    parses_or_says_why(text[:place] + data.draw(st.text(max_size=10)) + text[place + length :])


def calls_while_reading(text):
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        parse_deck(text)
    except NetlistError:
        pass
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "line",
    ["R{} a{} 0 1k\n", "* groundstate nodes: a{} b{}\n", "* comment {} {}\n", "\n", "V{} a{} 0 1 $ x\n", ".temp 27\n"],
)
def test_work_grows_no_faster_than_the_text(line):
    few, many = (calls_while_reading("t\n" + "".join(line.format(k, k) for k in range(n))) for n in (500, 4000))
    assert many <= 8.5 * few


def test_limits_of_size(monkeypatch):
    with pytest.raises(NetlistError, match="line 103: wanted at most 100 continuation lines"):
        parse_deck("t\nR1 a b\n" + "+ 1\n" * 200)
    monkeypatch.setattr(deck_module, "MAX_LINES", 10)
    with pytest.raises(NetlistError, match="at most 10 lines, got 12"):
        parse_deck("\n" * 11)
    monkeypatch.setattr(deck_module, "MAX_CHARACTERS", 100)
    with pytest.raises(NetlistError, match="at most 100 characters, got 101"):
        parse_deck("x" * 101)
