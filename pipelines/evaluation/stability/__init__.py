"""Stability suite: what methods do with small changes of the object, of the samples and of the sampling mask.

After Antun et al., PNAS 117 (2020).
"""

from pipelines.evaluation.stability.output import tables
from pipelines.evaluation.stability.parts import PARTS
from pipelines.evaluation.stability.run import stability

__all__ = ["PARTS", "stability", "tables"]
