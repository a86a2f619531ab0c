"""``python -m benchmarks.gpu_campaign``."""

from benchmarks.gpu_campaign.campaign import campaign
from benchmarks.harness import command_line

if __name__ == "__main__":
    command_line(campaign)
