"""Each chooser answers within range, the same each time, and says when it has no more answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.choosers import Bytes, HiddenState, Odometer, Recorded, Recording, Seeded
from model.choose import Chooser, Exhausted

COUNTS = [1, 2, 3, 7, 256, 257, 1000, 65536]


def answers(chooser: Chooser, counts: list[int]) -> list[int]:
    """The answers until the chooser is exhausted."""
    found = []
    try:
        for count in counts:
            found.append(chooser.choose(count))  # noqa: PERF401  # what was answered before the end counts
    except Exhausted:
        pass
    return found


def test_recorded_answers_are_folded_into_range_and_end() -> None:
    assert answers(Recorded([5, 5, 5]), [3, 5, 6, 9]) == [2, 0, 5]


def test_bytes_answer_one_choice_each_and_two_for_many_alternatives() -> None:
    chooser = Bytes(bytes([200, 1, 2, 255]))
    assert answers(chooser, [256, 257, 2, 2]) == [200, 0x0201 % 257, 1]


def test_a_byte_that_is_half_of_a_choice_is_no_answer() -> None:
    assert answers(Bytes(b"\x01"), [257]) == []


@given(st.integers(), st.lists(st.sampled_from(COUNTS), max_size=50))
def test_seeded_answers_are_in_range_and_repeat(seed: int, counts: list[int]) -> None:
    found = answers(Seeded(seed), counts)
    assert len(found) == len(counts)
    assert all(0 <= answer < count for answer, count in zip(found, counts, strict=True))
    assert answers(Seeded(seed), counts) == found


def test_seeded_answers_stop_at_their_bound() -> None:
    assert len(answers(Seeded(1, 10), [2] * 20)) == 10


def test_neighbouring_seeds_are_unrelated() -> None:
    runs = [tuple(answers(Seeded(seed), [1000] * 8)) for seed in range(200)]
    assert len(set(runs)) == 200
    assert len({run[0] for run in runs}) > 150


@pytest.mark.parametrize("count", [2, 3, 5, 10, 17])
def test_seeded_answers_are_close_to_uniform(count: int) -> None:
    """Five standard deviations either way, with a fixed seed: the test cannot fail by chance."""
    total = 20_000
    found = answers(Seeded(42), [count] * total)
    expected = total / count
    for answer in range(count):
        assert abs(found.count(answer) - expected) < 5 * expected**0.5


def enumerate_all(tree: dict[tuple[int, ...], int]) -> list[tuple[int, ...]]:
    """Every path through a tree that says how many alternatives each prefix has."""
    odometer = Odometer()
    found = []
    while True:
        path: tuple[int, ...] = ()
        while path in tree:
            path = (*path, odometer.choose(tree[path]))
        found.append(path)
        if not odometer.advance():
            return found


def test_an_odometer_enumerates_each_sequence_once_and_in_order() -> None:
    tree = {(): 3, (0,): 2, (0, 1): 2, (2,): 1, (2, 0): 3}
    assert enumerate_all(tree) == [(0, 0), (0, 1, 0), (0, 1, 1), (1,), (2, 0, 0), (2, 0, 1), (2, 0, 2)]


def test_an_odometer_over_nothing_has_one_empty_sequence() -> None:
    assert enumerate_all({}) == [()]


def test_an_odometer_notices_a_run_that_is_no_function_of_its_choices() -> None:
    odometer = Odometer()
    odometer.choose(3)
    assert odometer.advance()
    with pytest.raises(HiddenState, match=r"^choice 0 had 3 alternatives and now has 2: the run is no function of its choices"):
        odometer.choose(2)


def test_a_recording_replays_as_what_it_recorded() -> None:
    recording = Recording(Seeded(9))
    found = answers(recording, COUNTS)
    assert (recording.answers, recording.counts) == (found, COUNTS)
    assert answers(Recorded(recording.answers), COUNTS) == found


def test_a_recording_ends_with_what_it_records() -> None:
    recording = Recording(Recorded([1]))
    assert answers(recording, [2, 2]) == [1]
    assert recording.counts == [2]
