"""Numbers with the noun that they count."""

from phantoms_dagster.domain.counting import counted


def test_one_thing_is_said_in_the_singular_and_all_else_in_the_plural() -> None:
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert [counted(n, "video waits", "videos wait") for n in (1, 2)] == ["1 video waits", "2 videos wait"]
