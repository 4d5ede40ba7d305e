"""Text on drawings: nothing is drawn as a box, cut where it would be lost, or longer than its room."""

import pytest

from carzero.images.lettering import fit_middle, fit_text, load_font, measure_text, spell_out, wrap_text


@pytest.mark.parametrize(
    "text",
    ["pneumonia", "Pleuraerguß", "épanchement", "Пневмония", "πνευμονία", "tràn dịch màng phổi", "± 0.5 µm, ≥ 3"],
)
def test_letters_of_europe_and_signs_are_drawn(text: str) -> None:
    assert spell_out(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("肺炎.png", r"\u80ba\u708e.png"),
        ("דלקת", r"\u05d3\u05dc\u05e7\u05ea"),
        ("a\u202eb\tc", r"a\u202eb\tc"),
        ("\udcff", r"\udcff"),
        ("🫁", r"\U0001fac1"),
        ("u\u0308", "ü"),
    ],
)
def test_others_are_spelled_out_once(text: str, shown: str) -> None:
    assert spell_out(text) == shown == spell_out(shown)


def test_the_fonts_differ_only_where_they_must() -> None:
    assert measure_text("pneumonia", 16) == load_font(16).getlength("pneumonia")
    assert measure_text("Erguß", 16) == load_font(16, wide=True).getlength("Erguß")


@pytest.mark.parametrize("text", ["series_of_chest_images_of_a_ward_000123.png", "肺炎_患者_0042.dcm", "ab", "", "a"])
@pytest.mark.parametrize("room", [40, 90, 200, 10_000])
def test_lines_keep_to_their_room(text: str, room: int) -> None:
    for fit in (fit_text, fit_middle):
        assert measure_text(fit(text, 16, room), 16) <= room
    for line in wrap_text(f"{text} {text}", 16, room):
        assert measure_text(line, 16) <= room


def test_a_name_keeps_its_end() -> None:
    assert fit_middle("series_of_chest_images_000123.png", 16, 150).endswith("23.png")
    assert fit_middle("series_of_chest_images_000123.png", 16, 150).startswith("series")


def test_wrapping_loses_no_word_and_cuts_the_last_of_its_lines() -> None:
    text = "there is a small effusion on the left side and a nodule above it"
    assert " ".join(wrap_text(text, 16, 120)) == text
    assert wrap_text("", 16, 120) == ()
    first, last = wrap_text(text, 16, 120, lines=2)
    assert text.startswith(first)
    assert last.endswith("…")
