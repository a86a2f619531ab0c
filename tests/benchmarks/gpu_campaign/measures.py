"""Cases that end in every way; the processes of a campaign import them by name."""

import os
import signal
import time

from benchmarks.gpu_campaign.cases import Skipped


def works():
    yield {"number": 1}


def fails():
    yield {"number": 1}
    raise ValueError("no such thing")


def lacks():
    yield {"number": 1}
    raise Skipped("needs a GPU")


def crashes():
    print("about to crash", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    yield {}


def hangs(pid_file=None):
    if pid_file is not None:
        pid_file.write_text(str(os.getpid()))
    print("about to hang", flush=True)
    time.sleep(600)
    yield {}
