"""Repeated measurements as text, for programs that do not import JAX too."""

import statistics
from collections.abc import Sequence


def median_and_range(values: Sequence[float], digits: int = 0) -> str:
  """The median of values with their smallest and largest, as in '12 (10 to 20)'."""
  return f'{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})'
