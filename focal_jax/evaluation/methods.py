"""What is evaluated: networks by their weights, and baselines, all predicting alike; with focus as it is labelled, and
where a data set is known to label it wrongly also with corrected focus.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import focal_jax
from focal_jax.errors import InputError
from focal_jax.evaluation.protocols import FocusCorrection
from focal_jax.models.published import DATA_OF_PUBLISHED
from focal_jax.stack import Prediction

SHIPPED, CONSTANT = 'shipped', 'constant'


class ConstantModel:
  """The same depth everywhere, whatever the stack shows: what any method must beat.

  Attributes:
    value: in the unit of the stacks' focus; None: the middle of each stack's focus range.
  """

  name = CONSTANT

  def __init__(self, value: float | None):
    self.value = value

  def predict(
    self, images: np.ndarray, focus: np.ndarray, fov: np.ndarray | None = None, align: bool = True
  ) -> Prediction:
    """As `focal_jax.Model.predict`; frames stay as they are and confidence is 0."""
    frames, height, width = images.shape[:3]
    value = (np.min(focus) + np.max(focus)) / 2 if self.value is None else self.value
    return Prediction(
      depth=np.full((height, width), value, np.float32),
      confidence=np.zeros((height, width), np.float32),
      aligned=images / np.float32(255) if images.dtype == np.uint8 else images,
      coverage=np.ones((frames, height, width), np.float32),
      motion=np.zeros((frames, 3), np.float32),
    )


def open_methods(texts: Sequence[str], constant: Callable[[], float | None]) -> dict[str, Any]:
  """Methods by their labels, in the order given.

  Args:
    texts: 'shipped', a weights file, 'classical', 'classical:MEASURE' or 'constant', each perhaps after 'LABEL='. The
      label, which has no '/', is otherwise the text; of a weights file, its last folder and name.
    constant: gives the value of 'constant', see `ConstantModel`; called only if it is asked for.

  Raises:
    InputError: two methods of one label, or a method that cannot be loaded.
  """
  methods = {}
  for text in texts:
    label, equals, name = text.partition('=')
    if not equals or '/' in label:  # of a path, as sweeps name their folders: runs/model.detection=plane/best.npz
      label, name = '', text
    name = name.strip()
    label = label.strip() or ('/'.join(Path(name).parts[-2:]) if Path(name).suffix else name)
    if label in methods:
      raise InputError(f'--methods has two methods named {label!r}, expected a label before each: a=FILE,b=FILE')
    if name == CONSTANT:
      methods[label] = ConstantModel(constant())
    else:
      methods[label] = focal_jax.load(None if name == SHIPPED else name)
  return methods


@dataclasses.dataclass(frozen=True, eq=False)
class CorrectedFocus:
  """A method that is told another focus of every frame: the label plus `offset`, in the unit of the focus."""

  model: Any
  offset: float

  @property
  def name(self) -> str:
    return self.model.name

  def predict(
    self, images: np.ndarray, focus: np.ndarray, fov: np.ndarray | None = None, align: bool = True
  ) -> Prediction:
    """As `focal_jax.Model.predict`, with focus as labelled."""
    return self.model.predict(images, focus + np.float32(self.offset), fov, align)


def with_corrected_focus(methods: Mapping[str, Any], correction: FocusCorrection) -> dict[str, Any]:
  """The methods, and after each that has not been trained on the data set the same with corrected focus, labelled
  'LABEL, focus corrected'. A constant knows nothing of focus and is left as it is.
  """
  found = {}
  for label, model in methods.items():
    found[label] = model
    if not (isinstance(model, ConstantModel) or may_have_seen(model, correction.dataset)):
      found[f'{label}, focus corrected'] = CorrectedFocus(model, correction.offset)
  return found


def may_have_seen(model: Any, dataset: str) -> bool:
  """Whether a method was trained on a data set, as far as its weights file tells ('data' in its description), or is of
  published weights, which do not tell. A file without the entry, as they were written before there was one, counts as
  trained on simulated stacks.

  Args:
    dataset: without its config: 'ddff12'.
  """
  data = getattr(model, 'description', {}).get('data', ())
  return DATA_OF_PUBLISHED in data or any(name.partition('/')[0] == dataset for name in data)
