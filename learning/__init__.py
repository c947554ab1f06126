"""Rules that train physical systems through their contract."""

from learning.contrastive import EquilibriumPropagation
from learning.costs import CrossEntropy, SquaredError

__all__ = ["CrossEntropy", "EquilibriumPropagation", "SquaredError"]
