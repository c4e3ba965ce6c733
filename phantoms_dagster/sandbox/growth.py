"""The growth of a post's metrics in every stand-in: an S-shaped curve from zero to a plateau that never falls.

Each stand-in draws the height of a post's plateau and the share of likes at random.
"""

from __future__ import annotations


def risen(age: float, half: float) -> float:
    """The share of its plateau, 0 to 1, that a post has reached at `age`. It is one half at the age `half` (same unit)."""
    age = max(age, 0.0)
    return age**2 / (half**2 + age**2)
