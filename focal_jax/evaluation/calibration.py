"""A constant error of depth, found on other stacks and taken off: what one number of a data set's own calibration is
worth to a method that was not trained on it.
"""

import dataclasses
from typing import Any

import numpy as np
from tqdm import tqdm

from focal_jax import metrics
from focal_jax.data.sources import Source
from focal_jax.errors import InputError
from focal_jax.evaluation.methods import ConstantModel
from focal_jax.evaluation.protocols import Protocol
from focal_jax.stack import Prediction


@dataclasses.dataclass(frozen=True, eq=False)
class OffsetModel:
  """A method whose depth is too great by `offset`, in the unit of the stacks' focus, without it."""

  model: Any
  offset: float

  @property
  def name(self) -> str:
    return self.model.name

  def predict(
    self, images: np.ndarray, focus: np.ndarray, fov: np.ndarray | None = None, align: bool = True
  ) -> Prediction:
    """As `focal_jax.Model.predict`."""
    prediction = self.model.predict(images, focus, fov, align)
    return prediction.replace(depth=prediction.depth - np.float32(self.offset))


def with_offsets(
  methods: dict[str, Any], source: Source, protocol: Protocol, align: bool, split: str
) -> dict[str, Any]:
  """The methods, and after each but constants itself without its mean error on all stacks of a split (mean over the
  stacks of the mean over the pixels that are measured), labelled 'LABEL less OFFSET'.

  Raises:
    InputError: no depth is known.
  """
  found = {}
  for label, model in methods.items():
    found[label] = model
    if isinstance(model, ConstantModel):
      continue
    offset = _mean_error(model, source, protocol, align, f'offset of {label} on {split}')
    if np.isnan(offset):
      raise InputError(f"eval.offset_split is '{split}', expected a split in which depth is known")
    found[f'{label} less {offset:.4f}'] = OffsetModel(model, offset)
  return found


def _mean_error(model: Any, source: Source, protocol: Protocol, align: bool, title: str) -> float:
  errors = []
  for index in tqdm(range(len(source)), desc=title, unit='stack'):
    example = source[index]
    target, weight = protocol.truth(example)
    counted = np.asarray(metrics.is_counted(target, weight))
    images, focus, fov = (np.asarray(example[name]) for name in ('images', 'focus', 'fov'))
    if counted.any():
      depth = model.predict(images, focus, fov, align).depth
      errors.append(np.average((depth - target)[counted], weights=np.asarray(weight)[counted]))
  return float(np.mean(errors)) if errors else float('nan')
