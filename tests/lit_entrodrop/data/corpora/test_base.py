"""Packages are found without being imported, and their text is tidied."""

import pytest

from lit_entrodrop.data.corpora.base import package_dir, squeeze, strip_tags


@pytest.mark.parametrize("module", ["no_such_package", "this"])
def test_what_has_no_folder_is_not_found(module: str) -> None:
    with pytest.raises(FileNotFoundError, match=module):
        package_dir(module)


def test_squeeze_keeps_words_and_order() -> None:
    assert squeeze("\tone \u00a0 two\n\nthree ") == "one two three"


def test_strip_tags_does_not_join_the_words_around_a_break() -> None:
    assert strip_tags("one<br/>two &lt;3") == "one two <3"
