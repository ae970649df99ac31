"""Each sometimes property has a bit of its own and its words; the kept traces show an example of each."""

from model.properties import DESCRIPTIONS, Sometimes


def test_properties_are_bits_without_gaps() -> None:
    assert [what.value for what in Sometimes] == list(range(len(Sometimes)))


def test_each_property_says_what_was_seen() -> None:
    assert sorted(DESCRIPTIONS) == list(Sometimes)
    assert len(set(DESCRIPTIONS.values())) == len(Sometimes)
