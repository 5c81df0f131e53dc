"""Run time of a prediction without its compilation."""

import time

import numpy as np

from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import Prediction


class Timed:
  """Predicts, and says how long it took.

  The first stack of a shape is predicted twice: what is compiled for it is compiled before the clock runs. The time is
  from arrays on the host to arrays on the host, so the device has finished when the clock stops.
  """

  def __init__(self, predictor: Predictor):
    self.predictor = predictor
    self._compiled: set[tuple[tuple[int, ...], str]] = set()

  def predict(
    self, images: np.ndarray, focus: np.ndarray, fov: np.ndarray | None = None, align: str = 'measured'
  ) -> tuple[Prediction, float]:
    """The prediction, and the seconds it took."""
    if (images.shape, align) not in self._compiled:
      self.predictor.predict(images, focus, fov, align)
      self._compiled.add((images.shape, align))
    start = time.perf_counter()
    prediction = self.predictor.predict(images, focus, fov, align)
    return prediction, time.perf_counter() - start
