"""The evaluated methods: networks and baselines with a common interface; with labelled focus and, for data sets with
known label errors, corrected focus.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

import focal_jax
from focal_jax.align.estimate import check_alignment
from focal_jax.errors import InputError
from focal_jax.evaluation.protocols import FocusCorrection
from focal_jax.models.published import DATA_OF_PUBLISHED
from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import Images, Numbers, Prediction, as_float, checked_stack

CONSTANT = 'constant'


class ConstantPredictor(Predictor):
  """The same depth everywhere, whatever the stack shows: the minimum that any method must exceed.

  Attributes:
    value: in the unit of the stacks' focus; None: the middle of each stack's focus range.
  """

  name = CONSTANT
  reads_images = False

  def __init__(self, value: float | None):
    self.value = value
    self.description = {'constant': 'middle of the focus range' if value is None else value}

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: str = 'measured',
    motion: np.ndarray | jax.Array | None = None,
    *,
    tile_px: int | None = None,
  ) -> Prediction:
    """See `Predictor.predict`; frames stay as they are, whatever `align` and `motion`, and confidence is 0."""
    check_alignment(align)
    stack = checked_stack(images, focus, fov)
    frames, height, width = stack.images.shape[:3]
    value = (np.min(focus) + np.max(focus)) / 2 if self.value is None else self.value
    return Prediction(
      depth=np.full((height, width), value, np.float32),
      confidence=np.zeros((height, width), np.float32),
      aligned=as_float(stack.images),
      coverage=np.ones((frames, height, width), np.float32),
      motion=np.zeros((frames, 3), np.float32),
    )


def open_methods(texts: Sequence[str], constant: Callable[[], float | None]) -> dict[str, Predictor]:
  """Opens methods; returns them by label, in the given order.

  Args:
    texts: 'constant', or an argument of `focal_jax.load` ('shipped', a weights file, 'classical'), optionally after
      'LABEL='. The default label is the text; for a weights file, its last folder and name. A label must not contain
      '/'.
    constant: returns the value of 'constant', see `ConstantPredictor`; called only if needed.

  Raises:
    InputError: two methods with the same label, or a method that cannot be loaded.
  """
  methods = {}
  for text in texts:
    label, equals, name = text.partition('=')
    if not equals or '/' in label:  # part of a path, as in folders of sweeps: runs/model.detection=plane/best.npz
      label, name = '', text
    name = name.strip()
    label = label.strip() or ('/'.join(Path(name).parts[-2:]) if Path(name).suffix else name)
    if label in methods:
      raise InputError(f'--methods has two methods named {label!r}, expected a label before each: a=FILE,b=FILE')
    methods[label] = ConstantPredictor(constant()) if name == CONSTANT else focal_jax.load(name)
  return methods


@dataclasses.dataclass(frozen=True, eq=False)
class CorrectedFocus(Predictor):
  """A predictor with corrected focus of every frame: the label plus `offset`, in the unit of the focus."""

  predictor: Predictor
  offset: float

  @property
  def name(self) -> str:
    return self.predictor.name

  @property
  def description(self) -> Mapping[str, Any]:
    return self.predictor.description

  @property
  def trained_on(self) -> tuple[str, ...]:
    return self.predictor.trained_on

  @property
  def has_alignment_network(self) -> bool:
    return self.predictor.has_alignment_network

  @property
  def reads_images(self) -> bool:
    return self.predictor.reads_images

  @property
  def focus_offset(self) -> float:
    return self.offset

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: str = 'measured',
    motion: np.ndarray | jax.Array | None = None,
    *,
    tile_px: int | None = None,
  ) -> Prediction:
    """See `Predictor.predict`; takes the focus as labelled."""
    return self.predictor.predict(images, self._corrected(focus), fov, align, motion, tile_px=tile_px)

  def estimate_motion(
    self, images: Images, focus: Numbers, fov: Numbers | None = None, align: str = 'measured'
  ) -> Float32[np.ndarray, 'N K'] | None:
    """See `Predictor.estimate_motion`; takes the focus as labelled."""
    return self.predictor.estimate_motion(images, self._corrected(focus), fov, align)

  def _corrected(self, focus: Numbers) -> np.ndarray:
    return np.asarray(focus, np.float32) + np.float32(self.offset)


def with_corrected_focus(
  methods: Mapping[str, Predictor], correction: FocusCorrection, labelled: bool = True
) -> dict[str, Predictor]:
  """The methods; those not trained on the data set are followed by the same method with corrected focus, labelled
  'LABEL, focus corrected'. A constant does not depend on focus and is unchanged.

  Args:
    methods: by label.
    correction: the correction of the data set.
    labelled: whether to keep these methods with labelled focus too.
  """
  found = {}
  for label, predictor in methods.items():
    correctable = predictor.reads_images and not may_have_seen(predictor, correction.dataset)
    if labelled or not correctable:
      found[label] = predictor
    if correctable:
      found[f'{label}, focus corrected'] = CorrectedFocus(predictor, correction.offset)
  return found


def may_have_seen(predictor: Predictor, dataset: str) -> bool:
  """Whether a method may have been trained on a data set: according to 'data' in its weights file's description, or
  because it has published weights, which do not say. Older files without this entry count as trained on simulated
  stacks.

  Args:
    predictor: the method.
    dataset: without its config: 'ddff12'.
  """
  data = predictor.trained_on
  return DATA_OF_PUBLISHED in data or any(name.partition('/')[0] == dataset for name in data)


def alignment_of(predictor: Predictor, align: str) -> str:
  """The alignment used for a method in an evaluation with `align`: 'measured' if that is 'network' and it has none.

  So the classical method can be compared with networks that align as they were trained to.
  """
  return 'measured' if align == 'network' and not predictor.has_alignment_network else align
