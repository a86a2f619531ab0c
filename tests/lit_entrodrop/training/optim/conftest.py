from pathlib import Path

import pytest
import torch.distributed as dist


@pytest.fixture
def single_rank(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
