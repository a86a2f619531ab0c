"""What a model is judged by: torchmetrics that add up over batches and ranks."""

from lit_entrodrop.metrics.buckets import EntropyBuckets
from lit_entrodrop.metrics.document_losses import DocumentLosses
from lit_entrodrop.metrics.entropy_histogram import EntropyHistogram
from lit_entrodrop.metrics.memorization import Memorization, MemorizationProbe
from lit_entrodrop.metrics.passage_scores import Passage, PassageScores
from lit_entrodrop.metrics.run_metrics import RunMetrics, Scores
from lit_entrodrop.metrics.split_metrics import SplitMetrics, generalization_gap
from lit_entrodrop.metrics.token_metrics import TokenMetrics
from lit_entrodrop.metrics.weighted_means import WeightedMeans

__all__ = [
    "DocumentLosses",
    "EntropyBuckets",
    "EntropyHistogram",
    "Memorization",
    "MemorizationProbe",
    "Passage",
    "PassageScores",
    "RunMetrics",
    "Scores",
    "SplitMetrics",
    "TokenMetrics",
    "WeightedMeans",
    "generalization_gap",
]
