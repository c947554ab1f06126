"""A layered network as a circuit of single elements: for netlists, pictures, real diodes and other solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.classical.resistor.network import ResistorNetwork

if TYPE_CHECKING:
    from substrates.classical.resistor.circuit import CircuitNetwork
    from substrates.classical.resistor.layered import LayeredNetwork


def unfold(net: LayeredNetwork, diode: Shockley | None = None) -> CircuitNetwork:
    """The circuit of resistors, sources and diodes that a layered network stands for, with the same inputs x.

    Nodes are numbered: the inputs x; the doubled inputs input_gain (x, -x); then layer by layer the nodes, and after a
    hidden layer with an amplifier the amplified copies; at the end the rails that are not at 0 V.

    Args:
        net: with concrete parameters.
        diode: None keeps the diodes ideal; a `Shockley` makes them real.
    """
    n_inputs = net.sizes[0]
    total = 0

    def number(count: int) -> np.ndarray:
        nonlocal total
        total += count
        return np.arange(total - count, total)

    inputs, doubled = number(n_inputs), number(2 * n_inputs)
    gain = float(net.input_gain)
    sources = [(int(node), GROUND, int(source), GROUND, gain) for node, source in zip(doubled, inputs, strict=False)]
    sources += [
        (int(node), GROUND, int(source), GROUND, -gain) for node, source in zip(doubled[n_inputs:], inputs, strict=True)
    ]
    edges, conductance, diodes, currents, layers = [], [], [], [], []
    before = doubled
    for layer, size in enumerate(net.sizes[1:]):
        nodes = number(size)
        layers.append(nodes)
        edges.append(np.stack(np.meshgrid(before, nodes, indexing="ij"), axis=-1).reshape(-1, 2))
        conductance.append(np.asarray(net.conductance[layer]).ravel())
        currents += [
            (GROUND, int(node), float(current))
            for node, current in zip(nodes, np.asarray(net.bias_current[layer]), strict=True)
            if current != 0
        ]
        before = nodes
        if layer < len(net.sizes) - 2:
            half = (size + 1) // 2
            diodes += [(GROUND, int(node)) for node in nodes[:half]] + [(int(node), GROUND) for node in nodes[half:]]
            forward, backward = float(net.gain[layer]), float(net.reverse_gain[layer])
            if (forward, backward) != (1.0, 1.0):
                before = number(size)
                sources += [
                    (int(copy), GROUND, int(node), GROUND, forward, backward)
                    for copy, node in zip(before, nodes, strict=True)
                ]
    rails = {}
    for rail, voltage in enumerate(np.asarray(net.rail_voltage).tolist()):
        node = GROUND if voltage == 0 else int(number(1)[0])
        if voltage != 0:
            rails[node] = voltage
        for nodes, joined in zip(layers, net.rail_conductance, strict=True):
            edges.append(np.stack([np.full(nodes.size, node), nodes], axis=-1))
            conductance.append(np.asarray(joined[rail]))
    return ResistorNetwork.from_edges(
        np.concatenate(edges),
        total,
        inputs=inputs.tolist(),
        outputs=layers[-1].tolist(),
        conductance=np.concatenate(conductance),
        rails=rails,
        diodes=diodes,
        diode=diode,
        current_sources=currents,
        controlled_sources=sources,
        floor=net.floor,
    )
