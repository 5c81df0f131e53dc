"""Run time of a prediction without its compilation."""

import time
from typing import Any

import numpy as np

from focal_jax.stack import Prediction


class Timed:
  """Predicts with a model (anything with `Model.predict`), and says how long it took.

  The first stack of a shape is predicted twice: what is compiled for it is compiled before the clock runs. The time is
  from arrays on the host to arrays on the host, so the device has finished when the clock stops.
  """

  def __init__(self, model: Any):
    self.model = model
    self._compiled: set[tuple[tuple[int, ...], bool]] = set()

  def predict(
    self, images: np.ndarray, focus: np.ndarray, fov: np.ndarray | None = None, align: bool = True
  ) -> tuple[Prediction, float]:
    """The prediction, and the seconds it took."""
    if (images.shape, align) not in self._compiled:
      self.model.predict(images, focus, fov, align)
      self._compiled.add((images.shape, align))
    start = time.perf_counter()
    prediction = self.model.predict(images, focus, fov, align)
    return prediction, time.perf_counter() - start
