import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.sources import read_corpus
from lit_entrodrop.model.hub import use_cache_if_unreachable
from lit_entrodrop.model.loading import load_config


@pytest.fixture
def closed_hub() -> Iterator[None]:
    """A hub that refuses connections, without HF_HUB_OFFLINE."""
    use_cache_if_unreachable.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        yield
    use_cache_if_unreachable.cache_clear()


@pytest.mark.usefixtures("closed_hub")
def test_unreachable_hub_is_an_error_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"not in the cache, and http://127.0.0.1:9 cannot be re"):
        load_config("no/such-model")
    with pytest.raises(ValueError, match=r"corpus: cannot load hub:no/such-.*cannot be reached"):
        list(read_corpus(["hub:no/such-data"], ReadingOptions()))
    assert time.monotonic() - started < 20
    assert constants.HF_HUB_OFFLINE


def test_offline_mode_is_named() -> None:
    with pytest.raises(ValueError, match="not in the cache, and HF_HUB_OFFLINE is set: connect"):
        load_config("no/such-model")
