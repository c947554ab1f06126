"""How nodes are joined: couplings between groups of nodes and along the bonds of a graph, and sparse linear maps.

Pairwise systems share one algebra. Between an earlier group u and a later group v a coupling W offers `forward`, what
the later group feels, and `backward`, what the earlier one feels: the two derivatives of the interaction
<v, forward(u)>. Within a group, bonds offer `product`, W s. The energies of Hopfield networks -v'Wu, of Ising models
-s'Ws/2 and of oscillators -Re(z*'Wz)/2 are then a few lines each, dense, convolutional or on any graph; groups that are
not joined to one another (every other layer, the colours of a graph) settle together.
"""

from substrates.wiring.graphs import (
    Bonds,
    Edges,
    Graph,
    HashedByContent,
    added,
    colour_classes,
    connected_parts,
    lattice_edges,
    neighbour_table,
    summed,
    taken,
    with_leading_axes,
)
from substrates.wiring.grids import Grid, bonds_along, edges_by_axis
from substrates.wiring.layers import Convolution, Dense, Pooling, Strength, chain_of_groups, sweep_layers
from substrates.wiring.roles import CompiledRoles, Roles
from substrates.wiring.sparse import SparseMap

__all__ = [
    "Bonds",
    "CompiledRoles",
    "Convolution",
    "Dense",
    "Edges",
    "Graph",
    "Grid",
    "HashedByContent",
    "Pooling",
    "Roles",
    "SparseMap",
    "Strength",
    "added",
    "bonds_along",
    "chain_of_groups",
    "colour_classes",
    "connected_parts",
    "edges_by_axis",
    "lattice_edges",
    "neighbour_table",
    "summed",
    "sweep_layers",
    "taken",
    "with_leading_axes",
]
