"""What reading a netlist promises besides the numbers: notes, names, files of one folder, arithmetic, bounded work."""

import math
import re
import time

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_circuits import needs_ngspice

from substrates import SpiceCircuit, Status
from substrates.classical.resistor.network import ResistorNetwork
from substrates.spice.deck import TIGHT
from substrates.spice.expression import evaluate, evaluate_law
from substrates.spice.lines import NetlistError
from substrates.spice.ngspice import operating_point, run_deck
from substrates.spice.reader import MAX_EXPANDED, parse_deck

from_netlist, read_netlist = ResistorNetwork.from_netlist, ResistorNetwork.read_netlist
settle = eqx.filter_jit(lambda net, x: net.relax(x))
GOOD = "title\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k\n"


def voltages(read):
    found = settle(read.network, jnp.asarray(read.x))
    assert found.converged
    return dict(
        zip(read.names, np.asarray(read.network.voltages(found.state, jnp.asarray(read.x))).tolist(), strict=True)
    )


# notes


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (".tran 1u 1m", "line 5: .tran asks for an analysis"),
        (".save v(b)", "line 5: .save asks for output"),
        (".backanno", "line 5: .backanno asks for output"),
        (".title x", "line 5: .title is a title"),
        (".ic v(b)=1", "line 5: .ic is where a solver starts"),
        ("C1 b 0 1u", "line 5: c1 is open at the operating point"),
        ("C1 b 0 1u Rpar=1k", "line 5: c1 is open at the operating point, but for its RPAR"),
        ("L1 b c 1u\nR3 c 0 1", "line 5: l1 is a short at the operating point"),
        ("L1 b c 1u Rser=1\nR3 c 0 1", "line 5: l1 is its RSER alone"),
        ("K1 L1 L2 0.9", "line 5: k1 couples inductors"),
        ("R3 b b 1k", "line 5: r3 has both ends on node b and is left out"),
        ("R3 b c 0\nR4 c 0 1", "line 5: r3 has 0 ohms: a short, a source of 0 volts"),
        ("R3 b c 0\nR4 c 0 1\nL1 c b 1u", "line 7: l1 joins what other shorts join, and is left out"),
        ("I1 b 0 SIN(1 2 3)", "line 5: i1 counts by its value at the operating point, 1 A"),
        ("I1 b 0 1 SIN(1 2 3)", "line 5: i1 counts by its DC value, not by sin"),
        ("D1 b 0 m\n.model m D(BV=5)", "line 6: model m: it does not break down: .* beyond 5 V in reverse"),
        ("D1 b 0 m\n.model m D(RS=5)", "line 5: d1#rs is conductance 2 of the circuit"),
        ("G1 b 0 a 0 1m", "line 5: g1#siemens is conductance 2 of the circuit"),
    ],
)
def test_what_is_passed_over_is_noted(lines, note, capsys):
    notes = read_netlist(GOOD + lines + "\n").notes
    assert any(re.match(note, said) for said in notes), notes
    assert capsys.readouterr() == ("", "")


def test_a_plain_netlist_has_no_notes():
    assert read_netlist(GOOD).notes == ()
    with pytest.raises(TypeError, match="folder: wanted a path, got int"):
        read_netlist(GOOD, folder=3)


# names


def test_nodes_and_elements_of_subcircuits_have_dotted_names():
    text = GOOD + ".subckt s p\nX1 p t\n.ends\n.subckt t p\nR1 p n 1k\nR1 n 0 1k\n.ends\nX2 b s\n"
    with pytest.raises(NetlistError, match=r"line 10: element x2\.x1\.r1 is already there, on line 9"):
        read_netlist(text)
    read = read_netlist(text.replace("R1 n 0", "R2 n 0"), outputs=["x2.x1.n"])
    assert read.names == ("a", "b", "x2.x1.n")
    assert voltages(read)["x2.x1.n"] == pytest.approx(0.2, rel=1e-12)
    assert float(read.network.effective_resistance("x2.x1.n", "b")) > 0


def test_errors_name_nodes_and_never_number_them():
    wrong = "t\nV1 in 0 1\nR1 in far 1k\nR2 out other 1k\nR3 other third 1k\n"
    with pytest.raises(NetlistError) as caught:
        from_netlist(wrong)
    assert "floating nodes out, other, third" in str(caught.value)
    assert "line 4, r2" in str(caught.value)


def test_an_input_that_an_f_senses_stays_the_input():
    read = read_netlist("t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nF1 0 b V1 -0.5\n", inputs=["a"], outputs=["b"])
    assert [read.names[k] for k in read.network.inputs] == ["a"]
    # i(V1) = -(2 - b)/1k and half of it comes back: b/1k = 1.5 (2 - b)/1k
    assert voltages(read)["b"] == pytest.approx(1.2, rel=1e-12)


def test_a_circuit_with_controlled_sources_and_models_survives_the_round_trip():
    text = GOOD + "G1 0 c b 0 1m\nR3 c 0 1k\nD1 c d m\nD2 d 0 n 2\nH1 e c V1 10\nR4 e 0 1k\nF1 0 d V1 -0.1\n"
    read = read_netlist(text + ".model m D(IS=1n RS=2)\n.model n D(IS=1p N=2)\n", inputs=["a"])
    back = read_netlist(read.network.to_netlist(read.x))
    for name in ("edges", "diodes", "controlled_sources", "gain", "reverse_gain", "inputs", "rails"):
        np.testing.assert_array_equal(getattr(back.network, name), getattr(read.network, name))
    np.testing.assert_allclose(back.network.conductance, read.network.conductance, rtol=3e-16)
    np.testing.assert_array_equal(back.network.diode.saturation_current, read.network.diode.saturation_current)
    np.testing.assert_allclose(back.network.diode.emission_voltage, read.network.diode.emission_voltage, rtol=1e-15)


# arithmetic


numbers = st.floats(0.1, 9).map(lambda number: round(number, 3))


def binary(parts):
    def joined(pair_and_operator):
        (first, a), (second, b), operator = pair_and_operator
        value = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b if b else math.nan}[
            operator
        ]()
        return f"({first}){operator}({second})", value

    return st.tuples(parts, parts, st.sampled_from("+-*/")).map(joined)


def functions(parts):
    known = {
        "abs": abs,
        "sgn": lambda a: (a > 0) - (a < 0),
        "floor": math.floor,
        "ceil": math.ceil,
        "int": int,
        "atan": math.atan,
    }
    apply = lambda drawn: (
        f"{drawn[1]}({drawn[0][0]})",
        float(known[drawn[1]](drawn[0][1])) if math.isfinite(drawn[0][1]) else math.nan,
    )
    return st.tuples(parts, st.sampled_from(sorted(known))).map(apply)


expressions = st.recursive(
    numbers.map(lambda number: (str(number), number)), lambda parts: binary(parts) | functions(parts), max_leaves=12
)


@given(expressions)
def test_expressions_have_the_value_of_their_tree(expression):
    text, value = expression
    if math.isfinite(value):
        assert evaluate(text, {}.__getitem__) == pytest.approx(value, rel=1e-12, abs=1e-300)
    else:
        with pytest.raises(ValueError, match="no finite value"):
            evaluate(text, {}.__getitem__)


@given(st.text(max_size=60) | st.text(alphabet="()+-*/^?:12.e kvi,{}!<>=&|%", max_size=40))
def test_any_expression_is_computed_or_refused(text):
    try:
        assert math.isfinite(evaluate(text.lower(), {}.__getitem__))
        evaluate_law(text.lower(), {}.__getitem__)
    except ValueError as problem:
        assert len(str(problem)) < 700  # noqa: PT017


@given(st.lists(st.tuples(numbers, st.sampled_from(["v(a)", "v(b,a)", "i(v1)", "1"])), min_size=1, max_size=5))
def test_laws_are_sums_of_their_terms(terms):
    law = evaluate_law("+".join(f"{number}*{probe}/2" for number, probe in terms), {}.__getitem__)
    sums = {probe: sum(number / 2 for number, other in terms if other == probe) for _, probe in terms}
    keys = {"v(a)": ("v", "a", "0"), "v(b,a)": ("v", "b", "a"), "i(v1)": ("i", "v1")}
    assert law.constant == pytest.approx(sums.pop("1", 0.0))
    assert law.terms == pytest.approx({keys[probe]: value for probe, value in sums.items()})


# controlled sources with drawn values


@needs_ngspice
@given(st.lists(st.floats(-1, 1).map(lambda v: round(v, 3) or 0.5), min_size=6, max_size=6), st.integers(0, 2**31))
def test_composed_sources_agree_with_ngspice(values, seed):
    rng = np.random.default_rng(seed)
    ohms = [f"{r:.6g}" for r in 10 ** rng.uniform(2, 4, 8)]
    text = (
        "t\nV1 a 0 2\nV2 b c 0.5\nVs d 0 0\n"
        + "".join(
            f"R{k} {pair} {r}\n"
            for k, (pair, r) in enumerate(
                zip(("a b", "c d", "b 0", "a e", "e 0", "f 0", "e f", "g 0"), ohms, strict=True)
            )
        )
        + f"G1 0 e b 0 {values[0]}m\nG2 f e a c {values[1]}u\nF1 0 f Vs {values[2]}\nF2 f 0 V1 {values[3]}\n"
        + f"H1 g 0 V2 {values[4]}k\nG3 e 0 e 0 {values[5]}u\n.options {TIGHT}\n.op\n.end\n"
    )
    theirs = run_deck(text)
    try:
        read = read_netlist(text.replace(f".options {TIGHT}\n", ""))
    except NetlistError as problem:
        assert "determinant" in str(problem)  # noqa: PT017
        return
    ours = voltages(read)
    largest = max(abs(volts) for name, volts in theirs.items() if name.startswith("v("))
    for name in "abcdefg":
        assert ours[name] == pytest.approx(theirs[f"v({name})"], abs=1e-9 * largest)


@needs_ngspice
@given(st.floats(-0.99, 3).filter(lambda part: abs(part) > 0.01))
def test_a_negative_resistor_is_accepted_as_far_as_the_operating_point_is_stable(part):
    """1 mS holds node b; the negative resistor takes a part of that."""
    text = f"t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {-1e3 / abs(part)!r}\n"
    if abs(part) >= 1:
        with pytest.raises(NetlistError, match="no minimum at node b"):
            read_netlist(text)
        return
    read = read_netlist(text)
    assert voltages(read)["b"] == pytest.approx(1 / (1 - abs(part)), rel=1e-9)
    assert operating_point(text)["b"] == pytest.approx(1 / (1 - abs(part)), rel=1e-9)


def test_a_negative_resistor_beside_ideal_diodes():
    """Between nodes held by more than it takes; the diode blocks at -2 V, and conducts at 2 V."""
    text = "t\nV1 a 0 {}\nR1 a b 1k\nR2 b 0 -5k\nD1 b c i\nR3 c 0 1k\n.model i D\n* groundstate ideal: i\n"
    on, off = (voltages(read_netlist(text.format(volts))) for volts in (2, -2))
    assert (on["b"], on["c"]) == (pytest.approx(2 / 1.8, rel=1e-9), pytest.approx(2 / 1.8, rel=1e-9))
    assert (off["b"], off["c"]) == (pytest.approx(-2.5, rel=1e-9), pytest.approx(0, abs=1e-12))


# files


def test_files_come_from_the_folder_that_was_passed_and_no_other(tmp_path):
    folder = tmp_path / "models"
    (folder / "more").mkdir(parents=True)
    (tmp_path / "secret.lib").write_text("R9 b 0 1k\n")
    (folder / "plain.lib").write_text(".model m D(IS=1n)\n.include more/deep.inc\n")
    (folder / "more" / "deep.inc").write_bytes(
        "R3 b 0 1k ; 3 \N{MICRO SIGN}\r\n.include ../last.inc\r\n".encode("latin-1")
    )
    (folder / "last.inc").write_text("* nothing\n.end\n")
    (folder / "corners.lib").write_text(".lib tt\nR4 b 0 1k\n.endl tt\n.lib ss\nR4 b 0 2k\n.endl\n")
    (folder / "link.lib").symlink_to(tmp_path / "secret.lib")
    (folder / "inside.lib").symlink_to(folder / "last.inc")
    (folder / "round.lib").write_text(".include round.lib\n")
    (folder / "bad.lib").write_text("R5 b 0 1k\n\nR6 b\n")
    include = lambda line, **options: read_netlist(GOOD + line + "\n", outputs=["b"], **options)
    assert include('.include "plain.lib"', folder=folder).network.conductance.shape == (3,)
    assert include(".INC 'inside.lib'", folder=str(folder)).network.conductance.shape == (2,)
    assert float(include(".lib corners.lib SS", folder=folder).network.conductance[2]) == 1 / 2000
    outside = [
        "../secret.lib", "more/../../secret.lib", str(tmp_path / "secret.lib"), "link.lib", "/etc/passwd", "more", ".",
        "no.lib", "~/x.lib", "C:\\lib\\standard.dio", "a" * 500, "file:///etc/passwd", "/dev/zero", "x\0y",
    ]  # fmt: skip
    for name in outside:
        with pytest.raises(NetlistError, match=r"line 5: there is no file .* no other folder is read"):
            include(f".include {name}", folder=folder)
    with pytest.raises(NetlistError, match=r"round\.lib, line 1: wanted files that do not include one another"):
        include(".include round.lib", folder=folder)
    with pytest.raises(NetlistError, match=r"bad\.lib, line 3: wanted: name node node ohms"):
        include(".include bad.lib", folder=folder)
    with pytest.raises(NetlistError, match="one section 'ff' in the file, got 0"):
        include(".lib corners.lib ff", folder=folder)
    with pytest.raises(NetlistError, match="folder: wanted the folder"):
        include(".include plain.lib", folder=folder / "none")
    with pytest.raises(NetlistError, match="pass folder="):
        include(".include plain.lib")


# bounded work


NESTED = ".subckt s0 a\nR1 a 0 1k\n.ends\n" + "".join(
    f".subckt s{k} a\nX1 a s{k - 1}\nX2 a s{k - 1}\nX3 a s{k - 1}\n.ends\n" for k in range(1, 19)
)
CHAIN = "".join(f".subckt s{k} a\nX1 a s{k + 1}\n.ends\n" for k in range(500))
BACKWARDS = "".join(f".param p{k}={{p{k + 1}+1}}\n" for k in range(3000))
SQUARES = "".join(f".param a{k}={{a{k - 1}*a{k - 1}}}\n" for k in range(1, 300))
HOSTILE = {
    "itself": (".subckt s a\nX1 a s\n.ends\nX1 b s\n", "holds itself"),
    "each other": (".subckt s a\nX1 a t\n.ends\n.subckt t a\nX1 a s\n.ends\nX1 b s\n", "holds itself"),
    "doubling": (NESTED + "X1 b s18\n", f"characters; wanted at most {MAX_EXPANDED}"),
    "doubling of nothing": (NESTED.replace("R1 a 0 1k\n", "") + "X1 b s18\n", "characters; wanted at most"),
    "chain": (CHAIN + ".subckt s500 a\n.ends\nX1 b s0\n", "20 deep"),
    "nest": (".subckt s a\n" * 500, "20 deep"),
    "cycle": (".param a={b} b={a}\n", "depends on itself"),
    "own cycle": (".param a={a+1}\n", "depends on itself"),
    "long way back": (BACKWARDS + ".param p3000=1\n", "more than 20 deep"),
    "growth": (".param a0=10\n" + SQUARES, "no finite value"),
    "tower": (".param a={9**9**9**9**9**9**9**9}\n", "no finite value"),
    "parentheses": (".param a={" + "(" * 900 + "}\n", "nested at most 50"),
    "signs": (".param a={" + "-" * 900 + "1}\n", "nested at most 50"),
    "questions": (".param a={" + "1?1:" * 400 + "1}\n", "nested at most 50"),
    "long": (".param a={1" + "".join("+1" * 500 + "\n+ " for _ in range(3)) + "}\n", "at most 2000 characters"),
    "names": (".subckt s a\nX1 a t\n.ends\n.subckt t a\nR" + "1" * 70 + " a 0 1\n.ends\nX1 b s\n", "at most 64"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_netlists_are_refused_at_once(name):
    lines, problem = HOSTILE[name]
    began = time.process_time()
    with pytest.raises(NetlistError, match=problem):
        parse_deck(GOOD + lines)
    assert time.process_time() - began < 5


def test_many_parameters_each_from_the_one_before():
    text = (
        GOOD + ".param p0=1\n" + "".join(f".param p{k}={{p{k - 1}+1}}\n" for k in range(1, 3000)) + "R3 b 0 {p2999}\n"
    )
    assert parse_deck(text).elements[-1].value == 3000.0


def test_ten_thousand_instances_take_a_moment():
    text = GOOD + ".subckt s a b\nR1 a n {1k}\nR2 n b 2k\n.ends\n" + "".join(f"X{k} a b s\n" for k in range(10_000))
    began = time.process_time()
    assert len(parse_deck(text).elements) == 20_003
    assert time.process_time() - began < 10


# on the bench


@needs_ngspice
def test_a_live_circuit_reads_the_same():
    text = (
        ".title bench\n.param r=1k\nV1 a 0 SIN(0 1 1k)\nX1 a b half r={2*r}\nR1 b 0 {r}\nC1 b 0 1u\nG1 0 b a 0 0.1m\n"
        ".subckt half p q r=1k\nR1 p n {r/2}\nR2 n q {r/2}\nL1 p p 1m\n.ends\n.tran 1m 1\n"
    )
    with SpiceCircuit.from_netlist(text, inputs=["a"], outputs=["b"], epsilon=0.0) as live:
        assert live.spec.knobs.size == 3
        np.testing.assert_allclose(live.read().knobs, [1e-3, 1e-3, 1e-3])
        assert any(".tran" in note for note in live.notes)
        live.clamp(np.array([1.0]))
        assert live.settle() == Status.converged
        assert live.read().outputs[0] == pytest.approx((0.5e-3 + 0.1e-3) / 1.5e-3, rel=1e-9)
    with SpiceCircuit.from_netlist(text, inputs=["a"], outputs=["b"], trainable=["x1.r2"], epsilon=0.0) as live:
        assert live.spec.knobs.size == 1


@needs_ngspice
def test_a_negative_resistor_on_the_bench_may_leave_nothing_stable():
    text = "t\nV1 a 0 0\nR1 a b 1k\nR2 b 0 -2k\n"
    with SpiceCircuit.from_netlist(text, inputs=["a"], outputs=["b"], epsilon=0.0) as live:
        live.clamp(np.array([1.0]))
        assert (live.settle(), live.read().outputs[0]) == (Status.converged, pytest.approx(2.0, rel=1e-9))
        live.set_knobs(np.array([0.4e-3]))
        assert live.settle() == Status.unstable
