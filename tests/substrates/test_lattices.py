"""Lattices of every kind refuse what they cannot be built from."""

import pytest

from substrates import (
    ActivatorInhibitor,
    DrivenNetwork,
    IsingModel,
    OscillatorNetwork,
    QuantumOscillatorNetwork,
    ResistorNetwork,
    TransverseFieldIsing,
)

LATTICES = [
    (ActivatorInhibitor.lattice, {}),
    (DrivenNetwork.lattice, {}),
    (IsingModel.lattice, {}),
    (OscillatorNetwork.lattice, {}),
    (QuantumOscillatorNetwork.lattice, {}),
    (ResistorNetwork.lattice, {"inputs": [0], "outputs": [1]}),
    (TransverseFieldIsing.lattice, {}),
]


@pytest.mark.parametrize(("lattice", "words"), LATTICES)
@pytest.mark.parametrize(
    ("shape", "periodic", "message"),
    [
        ((4, 4), (True, False), "periodic: wanted True or False for all axes alike"),
        ((4, 4), 1, "periodic: wanted True or False"),
        ((2**16, 2**16), False, "shape: wanted at most 2,147,483,647 "),
        ((10**30, 2), False, "shape: wanted at most 2,147,483,647 "),
        ((0, 3), False, "shape: wanted whole numbers of "),
        ((2.5, 3), False, "shape: wanted whole numbers of "),
        ((), False, "shape: wanted whole numbers of "),
    ],
)
def test_what_is_no_lattice_is_refused(lattice, words, shape, periodic, message):
    with pytest.raises(ValueError, match=message):
        lattice(shape, periodic=periodic, **words)
