"""Imports that the fork server makes once for all workers; none of them starts CUDA."""

import benchmarks.gpu_campaign.steps.table  # noqa: F401
import lit_entrodrop.cli.lit_cli  # noqa: F401
