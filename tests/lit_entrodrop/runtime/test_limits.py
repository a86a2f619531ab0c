import sys

import pytest

from lit_entrodrop.runtime.limits import limited


@pytest.mark.skipif(sys.platform != "linux", reason="Other systems do not limit an allocation.")
def test_one_huge_allocation_fails() -> None:
    refused = pytest.raises(TimeoutError, match=r"more than 256 MiB of memory\. Shorten it\.")
    with refused, limited("Shorten it."):
        b"a" * 10**10
    assert len(b"a" * 2**29) == 2**29
