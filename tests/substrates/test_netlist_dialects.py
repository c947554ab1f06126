"""Netlists as other programs write them come to the operating point that ngspice finds, which reads them itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from netlist_dialects import LINEAR, WITH_DIODES
from spice_circuits import needs_ngspice

from substrates.classical.resistor.network import ResistorNetwork
from substrates.spice.deck import TIGHT
from substrates.spice.ngspice import operating_point, run_deck

from_netlist, read_netlist = ResistorNetwork.from_netlist, ResistorNetwork.read_netlist
settle = eqx.filter_jit(lambda net, x: net.relax(x))


def as_ngspice_reads_it(text):
    """A title may not be first among ngspice's lines twice."""
    body = "\n".join(line for line in text.splitlines() if line.strip().lower() not in (".end", ".op"))
    point = run_deck(f"{body}\n.options {TIGHT}\n.op\n.end\n")
    return {name[2:-1]: volts for name, volts in point.items() if name.startswith("v(")}


@needs_ngspice
@pytest.mark.parametrize("name", [*LINEAR, *WITH_DIODES])
def test_the_operating_point_is_that_of_ngspice(name):
    text = LINEAR[name] if name in LINEAR else WITH_DIODES[name]
    ours, theirs = (text, text) if isinstance(text, str) else text
    read = read_netlist(ours)
    found = settle(read.network, jnp.asarray(read.x))
    assert found.converged
    volts = dict(
        zip(read.names, np.asarray(read.network.voltages(found.state, jnp.asarray(read.x))).tolist(), strict=True)
    )
    wanted = as_ngspice_reads_it(theirs)
    again = operating_point(ours)
    compared = [node for node in wanted if node in volts and "#" not in node]
    assert compared
    assert set(compared) >= {node for node in volts if "#" not in node}
    rounding = 1e-8 if name in LINEAR else 3e-6
    largest = max(abs(wanted[node]) for node in compared)
    for node in compared:
        assert volts[node] == pytest.approx(wanted[node], abs=rounding * largest), node
        assert again[node] == pytest.approx(wanted[node], abs=rounding * largest), node
