import fcntl
import time
from collections.abc import Callable
from itertools import count
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from lit_entrodrop.entropy.partial_scores import PartialScores, partial_files
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.store_file import open_rows
from lit_entrodrop.runs.writing import WriteError
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.processes import fork, kill

BLOCKS, TOKENS, FINGERPRINT = 400, 3000, "abc"
RANDOM = Random(0)
NAME = "scores.safetensors"


def entropy_of(block: int, blocks: int = 1) -> Tensor:
    """The right entropies of some blocks from one on, which any process can tell."""
    numbers = torch.arange(block, block + blocks, dtype=torch.float32)[:, None]
    return (torch.arange(TOKENS) % 7 + 1) * 0.1 + numbers / BLOCKS


def begin(folder: Path) -> PartialScores:
    return PartialScores(folder / NAME, BLOCKS, TOKENS, FINGERPRINT)


def score(store: EntropyStore, blocks: range) -> None:
    for block in blocks:
        if not store.known[block]:
            store.record(torch.tensor([block]), entropy_of(block))


def assert_right_or_unknown(path: Path) -> int:
    """Return how many rows a file knows, each of which must be right."""
    rows, _ = open_rows(path)
    right = entropy_of(0, BLOCKS).half().numpy()
    assert rows.values[rows.known].tobytes() == right[rows.known].tobytes()
    assert np.isnan(rows.values[~rows.known]).all()
    return int(rows.known.sum())


def whole_file(folder: Path) -> bytes:
    folder.mkdir()
    partial = begin(folder)
    score(partial.store, range(BLOCKS))
    partial.finish(first=True)
    return (folder / NAME).read_bytes()


def score_for_ever(folder: Path, started: Event) -> None:
    partial = begin(folder)
    started.set()
    score(partial.store, range(BLOCKS))
    time.sleep(60)


def killed_soon(folder: Path, function: Callable[[Path, Event], None], longest: float) -> Path:
    """Let a child work for a random while after its start, and return the file that it leaves."""
    started = get_context("fork").Event()
    child = fork(function, folder, started)
    assert started.wait(60)
    time.sleep(RANDOM.uniform(0, longest))
    kill(child)
    [partial] = partial_files(folder / NAME)
    return partial


def test_killed_at_random_points_it_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    known, seen = 0, set[int]()
    while len(seen) < 6 and known < BLOCKS:
        now = assert_right_or_unknown(killed_soon(tmp_path, score_for_ever, 0.004))
        # A row that was under way is lost, and none that was finished.
        assert now >= known
        known = now
        seen.add(known)
    assert len(seen) > 2, "no child was killed midway: lengthen the work"
    partial = begin(tmp_path)
    assert partial.store.known.sum() == known
    score(partial.store, range(BLOCKS))
    partial.finish(first=True)
    assert (tmp_path / NAME).read_bytes() == whole_file(tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [NAME]


def write_over_for_ever(folder: Path, started: Event) -> None:
    partial = begin(folder)
    for epoch in count():
        for block in range(BLOCKS):
            partial.store.record(torch.tensor([block]), entropy_of(block) + epoch % 2)
        if epoch == 1:
            started.set()


def test_killed_while_it_writes_over_known_rows_it_leaves_no_mixture(tmp_path: Path) -> None:
    versions = [(entropy_of(0, BLOCKS) + epoch).half().numpy() for epoch in (0, 1)]
    for _ in range(10):
        rows, torn = open_rows(killed_soon(tmp_path, write_over_for_ever, 0.02))
        assert torn <= 1
        assert rows.known.sum() >= BLOCKS - 1
        is_version = [(rows.values == version).all(1) for version in versions]
        assert (is_version[0] | is_version[1])[rows.known].all()
        assert np.isnan(rows.values[~rows.known]).all()


def begin_and_leave(folder: Path) -> None:
    begin(folder)


def test_killed_while_it_takes_over_it_loses_nothing(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    score(partial.store, range(300))
    fcntl.flock(partial._file, fcntl.LOCK_UN)
    for _ in range(15):
        child = fork(begin_and_leave, tmp_path)
        time.sleep(RANDOM.uniform(0, 0.03))
        kill(child)
    last = begin(tmp_path)
    assert last.store.known.nonzero()[0].tolist() == list(range(300))
    assert partial_files(tmp_path / NAME) == [last._own_path]
    assert assert_right_or_unknown(last._own_path) == 300


def test_what_several_killed_ranks_left_is_merged(tmp_path: Path) -> None:
    left = [begin(tmp_path) for _ in range(3)]
    for rank, partial in enumerate(left):
        score(partial.store, range(rank * 10, rank * 10 + 5))
    assert len(partial_files(tmp_path / NAME)) == 3
    for partial in left:
        # As the system does it for a dead process.
        fcntl.flock(partial._file, fcntl.LOCK_UN)
    merged = begin(tmp_path)
    assert merged.store.known.nonzero()[0].tolist() == [*range(5), *range(10, 15), *range(20, 25)]
    assert merged.store.fresh.tolist() == merged.store.known.tolist()
    assert len(partial_files(tmp_path / NAME)) == 1
    assert assert_right_or_unknown(merged._own_path) == 15


def test_what_cannot_be_opened_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / f"{NAME}.other.partial"
    folder.mkdir()
    partial = begin(tmp_path)
    score(partial.store, range(BLOCKS))
    partial.finish(first=True)
    assert assert_right_or_unknown(tmp_path / NAME) == BLOCKS
    assert folder.exists()


def test_entropies_of_another_shape_are_not_taken_over(tmp_path: Path) -> None:
    other = EntropyStore(BLOCKS, 1, FINGERPRINT)
    other.record(torch.tensor([0]), torch.ones(1, 1))
    other.save(tmp_path / NAME)
    assert not begin(tmp_path).store.known.any()


def test_file_of_a_living_process_is_read_and_left_alone(tmp_path: Path) -> None:
    living = begin(tmp_path)
    score(living.store, range(7))
    other = begin(tmp_path)
    assert other.store.known.sum() == 7
    assert len(partial_files(tmp_path / NAME)) == 2
    score(living.store, range(9))
    assert other.store.known.sum() == 7


@pytest.mark.parametrize("first", [True, False])
def test_two_runs_may_score_the_same_at_once(tmp_path: Path, first: bool) -> None:
    ours, theirs = begin(tmp_path), begin(tmp_path)
    for partial in (ours, theirs):
        score(partial.store, range(BLOCKS))
    for partial in (ours, theirs) if first else (theirs, ours):
        partial.finish(first=True)
        assert assert_right_or_unknown(tmp_path / NAME) == BLOCKS
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert ours.store.lookup(torch.tensor([3])).equal(entropy_of(3).half().float())


def test_finished_file_that_vanished_is_written_again(tmp_path: Path) -> None:
    ours, theirs = begin(tmp_path), begin(tmp_path)
    score(ours.store, range(BLOCKS))
    theirs.finish(first=True)
    (tmp_path / NAME).unlink()
    ours.finish(first=True)
    assert assert_right_or_unknown(tmp_path / NAME) == BLOCKS


def test_other_ranks_leave_the_final_file_to_the_first(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    score(partial.store, range(BLOCKS))
    partial.finish(first=False)
    assert list(tmp_path.iterdir()) == []
    assert partial.store.known.all()


def test_what_is_no_store_is_removed(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"torn", bytes(100)]):
        (tmp_path / f"{NAME}.{number}.partial").write_bytes(content)
    EntropyStore(BLOCKS, TOKENS, "xyz").save(tmp_path / f"{NAME}.x.partial")
    (tmp_path / "other.safetensors.1.partial").write_bytes(b"")
    partial = begin(tmp_path)
    assert not partial.store.known.any()
    assert partial_files(tmp_path / NAME) == [partial._own_path]
    assert len(list(tmp_path.iterdir())) == 2


def test_torn_rows_of_a_finished_file_alone_are_missing(tmp_path: Path) -> None:
    whole = whole_file(tmp_path / "a")
    torn = bytearray(whole)
    torn[-1] ^= 1
    (tmp_path / NAME).write_bytes(torn)
    partial = begin(tmp_path)
    assert (~partial.store.known).nonzero()[0].tolist() == [BLOCKS - 1]
    score(partial.store, range(BLOCKS))
    partial.finish(first=True)
    assert (tmp_path / NAME).read_bytes() == whole
    assert load_file(tmp_path / NAME)["entropy"].shape == (BLOCKS, TOKENS)


def test_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    needed = rf"{NAME}: could not be written \(File too large\): 2\.4 MB needed"
    with files_of_at_most(50_000), pytest.raises(WriteError, match=needed):
        begin(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    partial = begin(tmp_path)
    partial.store.save(tmp_path / "copy.safetensors")
    partial.finish(first=True)
    (tmp_path / "other").touch()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
