"""A new metric is one file: everything else finds it."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from lit_entrodrop.cli.evaluation_table import evaluation_table
from lit_entrodrop.commands.compare.comparing import compare_existing
from lit_entrodrop.evaluation import metrics as package
from lit_entrodrop.evaluation.metrics.token_metric import TokenMetric, all_token_metrics
from tests.helpers.added_module import added_module
from tests.helpers.tiny import Tiny

SOURCE = '''
from lit_entrodrop.evaluation.metrics.token_metric import TokenMetric


class Confidence(TokenMetric):
    """Share of tokens that the model predicts with less than 5 nats of entropy."""

    name = "confidence"
    title = "confident predictions"
    form = ".1%"
    lower_is_better = False

    def values(self, outputs):
        return outputs.entropy < 5
'''


@pytest.fixture
def confidence(tmp_path: Path) -> Iterator[TokenMetric]:
    with added_module(package, "confidence", SOURCE, tmp_path):
        yield all_token_metrics()["confidence"]


def test_a_new_metric_is_logged_monitored_reported_and_compared(
    confidence: TokenMetric, tiny: Tiny
) -> None:
    stopping = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {
            "monitor": "val/confidence_low_entropy",
            "mode": "max",
            "patience": 1,
            # No share improves by so much.
            "min_delta": 2.0,
        },
    }
    config = tiny.folder / "stopping.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [stopping], "max_epochs": 5}}))
    plain = tiny.run("fit", "--config", config, root="plain")
    entrodrop = tiny.run("fit", "--config", "configs/regularizers/entrodrop.yaml", root="entrodrop")

    found = pd.read_csv(plain / "metrics.csv")
    names = [f"val/confidence{of}" for of in ("", "_low_entropy", "_mid_entropy", "_high_entropy")]
    shares = found[[*names, "clean_train/confidence"]].dropna()
    assert shares.stack().between(0, 1).all()
    assert shares.stack().nunique() > 1
    # Early stopping has waited for one validation without an improvement.
    assert found["epoch"].max() == 1

    table = evaluation_table(dict.fromkeys(names, 0.5))
    assert list(table.columns[1].cells) == ["confident predictions"]

    output = tiny.folder / "compared"
    compared = compare_existing([str(plain), str(entrodrop)], output, None, [], Console(width=200))
    last = found[names[0]].dropna().iloc[-1]
    assert compared["arms"]["plain"]["metrics"]["last/confidence"]["mean"] == pytest.approx(last)
    assert "verdict" in compared["arms"]["entrodrop"]["metrics"]["best/confidence"]
    page = (output / "report.html").read_text()
    assert "confident predictions, at last" in page
    assert "confident predictions (higher is better)" in page
    assert f"{last:.1%}" in page


def test_metrics_have_distinct_names_and_texts() -> None:
    found = all_token_metrics()
    assert list(found)[:3] == ["loss", "perplexity", "accuracy"]
    assert all(metric.title and name == metric.name for name, metric in found.items())
    assert "confidence" not in found
