from pathlib import Path

import pytest

from tests.helpers.tiny import save_llama


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model with tied embedding and head as a folder of Transformers."""
    widths = {"hidden_size": 64, "intermediate_size": 128}
    return save_llama(tmp_path_factory.mktemp("base"), **widths)
