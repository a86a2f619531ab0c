"""Verses are joined by chapter; figures are separated from sentences."""

from lit_entrodrop.data.corpora.prose import bible_chapters, prose_fields

SENTENCE = "temperate with mild winters and rather cool summers along the coast"


def test_same_chapter_number_of_two_books_stays_apart() -> None:
    verses = [
        {"book": "Ruth", "chapter": 1, "text": "Now it came to pass"},
        {"book": "Ruth", "chapter": 1, "text": "in the days."},
        {"book": "Amos", "chapter": 1, "text": "The words of Amos."},
    ]
    expected = ["Ruth 1\nNow it came to pass in the days.", "Amos 1\nThe words of Amos."]
    assert bible_chapters(verses) == expected


def test_a_nested_field_keeps_the_name_nearest_to_it() -> None:
    entry = {"Geography": {"Climate": {"text": SENTENCE}, "Area": {"land ": {"text": "9 sq km"}}}}
    assert list(prose_fields(entry)) == [f"Climate: {SENTENCE}"]
