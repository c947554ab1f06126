"""Networks of springs."""

from substrates.classical.elastic.equilibrium import ElasticEquilibrium, anchor_of
from substrates.classical.elastic.fire import FIRE
from substrates.classical.elastic.network import ElasticNetwork
from substrates.classical.elastic.rigidity import Rigidity

__all__ = ["FIRE", "ElasticEquilibrium", "ElasticNetwork", "Rigidity", "anchor_of"]
