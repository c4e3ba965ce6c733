"""How the numbers of a post grow in every stand-in: along an S from nothing to a plateau, never falling.

How high a post's plateau is, and which share of its views likes it, is drawn by each stand-in.
"""

from __future__ import annotations


def risen(age: float, half: float) -> float:
    """The share of its plateau, 0 to 1, that a post has reached at that age; half of it at the age `half` (same unit)."""
    age = max(age, 0.0)
    return age**2 / (half**2 + age**2)
