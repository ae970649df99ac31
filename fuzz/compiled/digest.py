"""A digest of a row of words: two mixes of 64 bits each that share nothing but the row.

Each mix has four lanes, so that a processor works on four words at once, and each word goes into one lane of either mix. A step is a
bijection of the lane for a given word, and of the word for a given lane: rows that differ in one word never have equal digests. The
two mixes take words up in different ways, by exclusive or and by addition, and with different multipliers and shifts. So what makes
one of them collide does not help with the other, and other rows have equal digests with a probability near 2**-128. That is no
protection against somebody who looks for collisions.

Source: Steele, Lea and Flood, *Fast splittable pseudorandom number generators* (2014), for `mix`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from impl.scan import Words

DIGEST_WORDS: Final = 2

# Odd, with bits that look like noise: from the golden ratio and the square root of three. Signed, as all words are here.
FIRST_MULTIPLIER: Final = 0x9E37_79B9_7F4A_7C15 - (1 << 64)
SECOND_MULTIPLIER: Final = 0xD1B5_4A32_D192_ED03 - (1 << 64)
MIX_MULTIPLIER: Final = 0xBF58_476D_1CE4_E5B9 - (1 << 64)
MIX_MULTIPLIER_LAST: Final = 0x94D0_49BB_1331_11EB - (1 << 64)
LOW_63: Final = (1 << 63) - 1


def signed(number: int) -> int:
    """Return the signed word with the lowest 64 bits of a number. It changes nothing in compiled code, where numbers are such words."""
    return (number & LOW_63) | (-(number >> 63 & 1) << 63)


def mix(word: int) -> int:
    """Return a bijection of a word in which each bit depends on all."""
    word = signed((word ^ (word >> 30 & 0x3_FFFF_FFFF)) * MIX_MULTIPLIER)
    word = signed((word ^ (word >> 27 & 0x1F_FFFF_FFFF)) * MIX_MULTIPLIER_LAST)
    return word ^ (word >> 31 & 0x1_FFFF_FFFF)


def step_first(lane: int, word: int) -> int:
    """Take a word into a lane of the first mix."""
    lane = signed((lane ^ word) * FIRST_MULTIPLIER)
    return lane ^ (lane >> 32 & 0xFFFF_FFFF)


def step_second(lane: int, word: int) -> int:
    """Take a word into a lane of the second mix."""
    lane = signed((lane + word) * SECOND_MULTIPLIER)
    return lane ^ (lane >> 29 & 0x7_FFFF_FFFF)


def digest(row: Words, out: Words, at: int) -> None:
    """Write the digest of all words of a row, signed, to ``out[at]`` and the word after it.

    Args:
        row: Signed or unsigned words; cut it where it ends.
        out: Where the digest goes.
        at: Index of its first word.

    Complexity: linear; a few processor cycles for each word.
    """
    a0, a1, a2, a3 = 1, 2, 3, 4
    b0, b1, b2, b3 = 5, 6, 7, 8
    size = len(row)
    for index in range(0, size - 3, 4):
        a0 = step_first(a0, row[index])
        b0 = step_second(b0, row[index])
        a1 = step_first(a1, row[index + 1])
        b1 = step_second(b1, row[index + 1])
        a2 = step_first(a2, row[index + 2])
        b2 = step_second(b2, row[index + 2])
        a3 = step_first(a3, row[index + 3])
        b3 = step_second(b3, row[index + 3])
    for index in range(size - (size & 3), size):
        a0 = step_first(a0, row[index])
        b0 = step_second(b0, row[index])
    out[at] = mix(mix(mix(mix(a0 ^ size) ^ a1) ^ a2) ^ a3)
    out[at + 1] = mix(mix(mix(mix(b0 ^ size) ^ b1) ^ b2) ^ b3)
