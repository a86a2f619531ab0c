import pytest

from benchmarks.harness import ROOT
from benchmarks.pages import filled
from benchmarks.scaling import FIGURE, PAGE, draw, most_devices, tables
from benchmarks.scaling_model import ARRANGEMENTS, Step, sizes


def test_page_holds_what_is_computed():
    page = (ROOT / PAGE).read_text()
    assert page.count("| ---") >= 6
    assert filled(page, tables()) == page, "run: python -m benchmarks.scaling --write true"


def test_figure_is_drawn(tmp_path):
    draw(tmp_path / "scaling.svg")
    assert "<path" in (tmp_path / "scaling.svg").read_text()
    assert (ROOT / FIGURE).exists()


def test_shape_is_that_of_llama():
    assert sizes().parameters == 8_030_261_248  # as its model card counts them
    assert sizes().around == 2 * 128256 * 4096 + 4096


def test_more_tokens_in_a_micro_batch_help_and_more_micro_batches_do_not():
    fsdp2 = next(each for each in ARRANGEMENTS if each.name == "FSDP2")
    few = Step(fsdp2, 1024, 4096)
    assert Step(fsdp2, 1024, 16384).efficiency > few.efficiency + 0.2
    assert Step(fsdp2, 1024, 4096, accumulate=4).efficiency == pytest.approx(few.efficiency)


def test_a_corpus_fills_as_many_devices_as_leave_steps():
    assert [most_devices(tokens) for tokens in (1e4, 20 * 4096, 1.2e6, 24e6)] == [1, 1, 8, 256]
