"""Networks of springs."""

from substrates.classical.elastic.equilibrium import ElasticEquilibrium, anchor_of
from substrates.classical.elastic.network import ElasticNetwork

__all__ = ["ElasticEquilibrium", "ElasticNetwork", "anchor_of"]
