"""Run time of a prediction without its compilation."""

import time

import numpy as np

from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import Prediction


class Timed:
  """Predicts, and measures the run time.

  The first stack of each shape is predicted twice, so that compilation is not measured. Times are from host arrays to
  host arrays, so the device has finished when the clock stops.
  """

  def __init__(self, predictor: Predictor):
    self.predictor = predictor
    self._compiled: set[tuple[tuple[int, ...], str]] = set()

  def predict(
    self, images: np.ndarray, focus: np.ndarray, fov: np.ndarray | None = None, align: str = 'measured'
  ) -> tuple[Prediction, float]:
    """The prediction, and its run time in seconds."""
    if (images.shape, align) not in self._compiled:
      self.predictor.predict(images, focus, fov, align)
      self._compiled.add((images.shape, align))
    start = time.perf_counter()
    prediction = self.predictor.predict(images, focus, fov, align)
    return prediction, time.perf_counter() - start
