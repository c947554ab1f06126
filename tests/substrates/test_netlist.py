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
from substrates.spice import reader as reader_module
from substrates.spice.deck import write_deck
from substrates.spice.expression import parse_number
from substrates.spice.lines import NetlistError
from substrates.spice.reader import parse_deck

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
        ("R3 b 0 R=", "value after"),
        ("R3 b 0 R=1k=2", "wanted"),
        ("R3 b 0 1k power=3", "only r resistance"),
        ("R3 b 0 nan", "wanted a number"),
        ("R3 b 0 inf", "wanted a number"),
        ("R3 b 0 4k7", "wanted a number"),
        ("R3 b 0 1e-320", "reciprocal"),
        ("R3 b 0 1k m=-2", "positive multiplier"),
        ("R3 b 0 1k tc=1 2 3", "at most two"),
        ("R3 b 0 {1k", "counterpart"),
        ("R3 b 0 {1k+}", "wanted a number, a name or"),
        ("R3 b 0 {rval}", "no .param defines 'rval'"),
        ("R3 b 0 {1/0}", "no finite value"),
        ("R3 b 0 {exp(1e9)}", "no finite value"),
        ("R3 b 0 {sqrt(-1)}", "sqrt has no value there"),
        ("R3 b 0 {(-2)^2}", "programs differ in powers"),
        ("R3 b 0 {min(1)}", "min wants 2 arguments, got 1"),
        ("R3 b 0 {__import__('os')}", "counterpart|wanted|no function"),
        ("R3 b 0 {().__class__}", "wanted"),
        ("R3 b 0 {system(1)}", "no function 'system'"),
        ("R3 b 0 {v(a)}", "no function 'v'"),
        ("R3 b {a} 1k", "wanted the name of a node"),
        ("R1 b 0 1k", "already there, on line 3"),
        ("r1 b 0 1k", "already there, on line 3"),
        ("V2 a 0 2", "already held"),
        ("V2 c c 2", "both ends"),
        ("V2 c 0 SIN(0)", "at least 2 numbers"),
        ("V2 c 0 PULSE(0 1 -1u)", "delay below 0"),
        ("V2 c 0 PWL(0 1 0 2)", "times that grow"),
        ("V2 c 0 TRNOISE(1 2)", "trnoise"),
        ("V2 c 0 1 2", "with it"),
        ("D1 a b", "wanted: name anode cathode model"),
        ("D1 a b nomodel", "no .model card"),
        ("D1 a b nomodel temp=50", "the temperature of the circuit"),
        ("E1 c 0 a 2", "wanted: name plus minus control-plus control-minus gain"),
        ("E1 c 0 POLY(1) a 0 0 1 2", "to the first degree"),
        ("E1 c 0 POLY(99) a 0 0 1 2", "n controls"),
        ("E1 c 0 VALUE={V(a)*V(b)}", "not linear"),
        ("E1 c 0 VALUE={exp(V(a))}", "not linear"),
        ("E1 c 0 TABLE {V(a)} = (0,0)", "wanted"),
        ("E1 c 0 LAPLACE {V(a)} = {1/s}", "wanted"),
        ("E1 c 0 a 0 2 m=3", "only none"),
        ("F1 b 0 V9 2", "no voltage source"),
        ("F1 b 0 R1 2", "no voltage source"),
        ("H1 c 0 V9 2", "no voltage source"),
        ("B1 c 0 V=V(a)^2", "not linear"),
        ("B1 c 0 V=time", "no .param defines 'time'"),
        ("B1 c 0 I=i(R1)", "no voltage source"),
        ("B1 c 0 1", "V=law or I=law"),
        ("X1 a b sub", "no subcircuit 'sub'"),
        ("X1", "wanted: name node"),
        ("Q1 a b c m", "none of R, C, L, V, I, D, E, G, F, H, B, X"),
        (".include /etc/passwd", "pass folder="),
        (".lib models.lib tt", "pass folder="),
        (".control", "nothing in a netlist is executed"),
        (".step param x 1 2 1", "read one circuit for each value"),
        (".func f(x) {x*x}", "where it is used"),
        (".param x", "NAME = VALUE"),
        (".param", "NAME = VALUE"),
        (".subckt s a b", "has no .ends"),
        (".subckt s a a", "different"),
        (".subckt s 0", "none of them ground"),
        (".ends", "no .subckt"),
        (".options rshunt=1", "is not known"),
        (".options gshunt=1", "is not known"),
        (".options temp=-300", "absolute zero"),
        (".options gmin", "wanted a number"),
        (".options gmin=-1e-15", "gmin: wanted siemens, at least 0"),
        (".options gmin 1e-3", "wanted a number"),
        (".temp 20 30", "one temperature"),
        (".model m", "wanted a model"),
        (".model m D(IS=)", "value after"),
        (".model m D(IS=1n) shell", "wanted .model NAME D"),
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
    ("model", "problem"),
    [
        ("D(IS=-1)", "IS > 0"),
        ("D(N=0)", "N between"),
        ("D(RS=-1)", "RS >= 0"),
        ("D(IKF=1m)", "diode parameter ikf is beyond Shockley's law, .* remove it where the circuit does not reach it"),
        ("D(Ron=1 Vfwd=0.7)", "diode parameter 'ron' is not known"),
        ("NPN(BF=100)", "diode model"),
    ],
)
def test_a_bad_model_is_named_where_it_is_used(model, problem):
    assert from_netlist(GOOD + f".model m {model}\n").n == 2
    with pytest.raises(NetlistError, match=f"line 5: .*{problem}"):
        from_netlist(GOOD + f".model m {model}\nD1 a b m\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at least one node"),
        ("title\n", "at least one node"),
        ("title\n+ R1 a b 1\n", "line 2: there is no line"),
        ("t\nV1 a 0 1\n.end\nR1 a 0 1\n", "line 4: wanted nothing after .end"),
        ("t\nV1 a 0 1\nR1 a 0 1\nR2 c d 1\n", "^netlist, line 4, r2: edges: got floating nodes c, d: wanted"),
        (
            "t\nV1 a 0 1\nR1 a 0 1\nV2 b a 1\nV3 b 0 3\n",
            "^netlist, line 4, v2: voltage_sources: .*the loop a - ground - b - a",
        ),
        ("t\nV1 a b 1\nR1 a b 1\n", "ground is missing, node 0"),
        (
            "t\nV1 a 0 1\nD1 a b i\nV2 b 0 0\n.model i D\n* groundstate ideal: i",
            r"^netlist, line 3, d1: .*number 0, \[a, b\]",
        ),
        (
            "t\nV1 a 0 1\nR0 a e 1\nE1 b 0 c 0 2\nE2 c 0 b 0 0.5\nR1 b e 1\n",
            "^netlist, line 4, e1: controlled_sources: .* no single solution: change a gain",
        ),
        ("t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 -500\n", "line 4: with the negative resistance of r2 .* no minimum at node b"),
        ("t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 -1k\n", "line 4: with the negative resistance of r2 .* no minimum at node b"),
        ("circuits/amplifier.cir", "looks like the path of one"),
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
    several = from_netlist(text.replace("N = 1.5", "N = 2")).diode
    np.testing.assert_allclose(several.emission_voltage, np.array([1.5, 2.0]) * kelvin * 300.15, rtol=1e-14)
    np.testing.assert_array_equal(several.saturation_current, [1e-12, 1e-12])


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


WORDS = """r1 r2 v1 v2 i1 d1 d2 e1 f1 g1 h1 l1 c1 b1 x1 k1 0 gnd a b c 1 -1 0.0 1k 1e-3 1e308 1e-308 nan = ( ) , m D
.model .temp .options .param .subckt .ends .global .include .lib .ic .tran s p {p} {p*2} 'p+1' {1/0} p=2 p={p} v(a)
i(v1) V=v(a) I=2 POLY(1) VALUE={v(b)} SIN(0 1 m=2 area=2 tc=1 params: .end is n rs tnom + * ; $ { ' dc ac * groundstate
inputs: open: ideal: nodes:"""


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
    [
        "R{} a{} 0 1k\n",
        "* groundstate nodes: a{} b{}\n",
        "* comment {} {}\n",
        "\n",
        "V{} a{} 0 1 $ x\n",
        ".temp 27\n",
        ".param p{}={{1+{}}}\n",
        ".subckt s{} a{}\n.ends\n",
        ".model m{} D(IS={}n)\n",
        ".tran {} {}\n",
        "R{} a{} 0 {{2*(1+3k)}}\n",
        "L{} a{} 0 1m\n",
    ],
)
def test_work_grows_no_faster_than_the_text(line):
    few, many = (calls_while_reading("t\n" + "".join(line.format(k, k) for k in range(n))) for n in (500, 4000))
    assert many <= 8.5 * few


def test_limits_of_size(monkeypatch):
    with pytest.raises(NetlistError, match="line 103: wanted at most 100 continuation lines"):
        parse_deck("t\nR1 a b\n" + "+ 1\n" * 200)
    monkeypatch.setattr(reader_module, "MAX_LINES", 10)
    with pytest.raises(NetlistError, match="at most 10 lines, got 12"):
        parse_deck("\n" * 11)
    monkeypatch.setattr(reader_module, "MAX_CHARACTERS", 100)
    with pytest.raises(NetlistError, match="at most 100 characters, got 101"):
        parse_deck("x" * 101)
