"""Metrics of a model, added up over batches and ranks."""

from lit_entrodrop.entropy.buckets import EntropyBuckets
from lit_entrodrop.evaluation.metrics.document_losses import DocumentLosses
from lit_entrodrop.evaluation.metrics.entropy_histogram import EntropyHistogram
from lit_entrodrop.evaluation.metrics.memorization import Memorization, MemorizationProbe
from lit_entrodrop.evaluation.metrics.passage_scores import Passage, PassageScores
from lit_entrodrop.evaluation.metrics.run_metrics import RunMetrics, Scores
from lit_entrodrop.evaluation.metrics.split_metrics import SplitMetrics, generalization_gap
from lit_entrodrop.evaluation.metrics.token_metric import TokenMetric, all_token_metrics
from lit_entrodrop.evaluation.metrics.token_metrics import TokenMetrics
from lit_entrodrop.evaluation.metrics.weighted_means import WeightedMeans

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
    "TokenMetric",
    "TokenMetrics",
    "WeightedMeans",
    "all_token_metrics",
    "generalization_gap",
]
