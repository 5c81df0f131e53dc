"""Evaluation protocol of each data set: measures, units and published figures.

Published figures are quoted with their source. `Published.measured_on` gives the stacks they were measured on; only on
the splits in `Published.same_as` are results strictly comparable.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from focal_jax import metrics, optics


@dataclasses.dataclass(frozen=True)
class Published:
  """One row of a published table.

  Attributes:
    method: by its usual name.
    measured_on: stacks and mask.
    values: figures as printed, by names of `metrics.NAMES`.
    source: where they were published.
    same_as: (data set with config, split) with the same stacks and the same mask.
  """

  method: str
  measured_on: str
  values: Mapping[str, float]
  source: str
  same_as: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class FocusCorrection:
  """A known constant offset of focus labels. Networks trained on the data set have learned it; others are measured with
  the labels as published, and again with the offset added to their focus.

  Attributes:
    offset: in the unit of the focus, from the training split of the data set; never from evaluated stacks.
    dataset: name of the data set, without its config.
  """

  offset: float
  dataset: str


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What is measured on a data set.

  Attributes:
    unit: of depth and focus; None: the unit of the stacks.
    names: the measures that are meaningful for it, of `metrics.NAMES`.
    mask: which pixels count, in words.
    low, high: range of the target, both ends included, in addition to the data set's own `valid`; None: no limit.
    centre: (height, width) of the measured centre of a frame, px; None: all of it. Whole frames are predicted.
    relative: depths and targets are relative to the stack's focus range, 0 for the farthest frame and 1 for the
      nearest, because the units of the stacks differ.
    published: rows to print next to ours.
    focus_correction: None: the labels are correct.
  """

  unit: str | None
  names: tuple[str, ...]
  mask: str
  low: float | None = None
  high: float | None = None
  centre: tuple[int, int] | None = None
  relative: bool = False
  published: tuple[Published, ...] = ()
  focus_correction: FocusCorrection | None = None

  def truth(self, example: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Target and weight [H, W] of an example under this protocol."""
    target, weight = np.asarray(example['target']), np.array(example['valid'])
    if self.centre:
      inside = np.zeros_like(weight, bool)
      window = tuple(
        slice(max((length - middle) // 2, 0), max((length - middle) // 2, 0) + middle)
        for length, middle in zip(weight.shape, self.centre, strict=True)
      )
      inside[window] = True
      weight = np.where(inside, weight, 0)
    if self.low is not None:
      target, weight = map(np.asarray, metrics.restrict(jnp.asarray(target), jnp.asarray(weight), self.low, self.high))
    return target, weight


_ERRORS = ('mse', 'rms', 'mae')
_ALL_BUT_BADPIX = tuple(name for name in metrics.NAMES if name != 'badpix')
_AIF = 'Wang et al., "Bridging Unsupervised and Supervised Depth from Focus", ICCV 2021'
_WON = 'Won and Jeon, "Learning Depth from Focus in the Wild", ECCV 2022'
_DFV = 'Yang, Huang and Zhou, "Deep Depth from Focus with Differential Focus Volume", CVPR 2022; as quoted by others'
_FOSSA = 'Zuo et al., "Zero-Shot Depth from Defocus", 2026 (arXiv 2603.26658)'

_DDFF_TEST = 'DDFF-12 test, 120 stacks, by the server'
_DDFF_VAL = 'DDFF-12 val, scene-disjoint (glassroom, office41), 200 stacks'
_DDFF_VAL_UNSTATED = f'{_DDFF_VAL}, mask not stated'
_DDFF_VAL_SPLITS = (('ddff12/scene_disjoint', 'val'), ('ddff12/raw', 'val'))
_FOD = 'FoD500 test, 0.1 .. 1.5 m'
_FOD_SPLITS = (('fod500/official', 'test'),)
_HCI = 'HCI 4D Light Field, 4 scenes'
_HCI_SPLITS = (('hci4d/official', 'val'),)
_MIDDLEBURY = 'Middlebury, 15 scenes, trained on FlyingThings3D'
_MIDDLEBURY_SPLITS = (('middlebury_fs/official', 'test'),)


def _row(method: str, measured_on: str, source: str, same_as: tuple = (), **values: float) -> Published:
  return Published(method, measured_on, values, source, same_as)


DDFF12 = Protocol(
  unit='px',
  names=metrics.NAMES,
  mask='disparity 0.0202 .. 0.2825 px (7 m .. 0.5 m)',
  low=metrics.DDFF_LOW_PX,
  high=metrics.DDFF_HIGH_PX,
  focus_correction=FocusCorrection(optics.DDFF_FOCUS_OFFSET_PX, 'ddff12'),
  published=(
    _row(
      'AiFDepthNet', _DDFF_TEST, f'{_AIF}, table 4', mse=8.6e-4, log_rms=0.29, abs_rel=0.25, sqr_rel=0.01,
      bumpiness=0.63, delta_1=68.33, delta_2=87.40, delta_3=93.96,
    ),
    _row('DefocusNet', _DDFF_TEST, f'{_AIF}, table 4', mse=9.1e-4),
    _row(
      'DDFFNet', _DDFF_TEST, f'{_AIF}, table 4', mse=9.7e-4, log_rms=0.32, abs_rel=0.29, sqr_rel=0.01, bumpiness=0.59,
      delta_1=61.95, delta_2=85.14, delta_3=92.98,
    ),
    _row(
      'VDFF', _DDFF_TEST, f'{_AIF}, table 4', mse=7.3e-3, log_rms=1.39, abs_rel=0.62, sqr_rel=0.05, bumpiness=0.79,
      delta_1=8.42, delta_2=19.95, delta_3=32.68,
    ),
    _row(
      'DFV', f'{_DDFF_VAL}, 5 frames, disparity above 0', _DFV, mse=5.70e-4, rms=0.0213, abs_rel=0.17, sqr_rel=6.26e-3,
      bumpiness=0.42, delta_1=76.74, delta_2=94.23, delta_3=98.14,
    ),
    _row(
      'HybridDepth', _DDFF_VAL_UNSTATED,
      'Ganj et al., "HybridDepth: Robust Metric Depth Fusion", WACV 2025; as quoted by others', _DDFF_VAL_SPLITS,
      mse=5.1e-4,
    ),
    _row(
      'DualFocus', _DDFF_VAL_UNSTATED, 'Woo and Lee, "DualFocus", NeurIPS 2025 (arXiv 2509.21992)', _DDFF_VAL_SPLITS,
      mse=4.7e-4,
    ),
    _row('FOSSA, fine-tuned', _DDFF_VAL_UNSTATED, _FOSSA, _DDFF_VAL_SPLITS, mse=3e-4),
    _row('FOSSA, zero-shot', _DDFF_VAL_UNSTATED, _FOSSA, _DDFF_VAL_SPLITS, mse=1.3e-3),
  ),
)  # fmt: skip

FOD500 = Protocol(
  unit='m',
  names=_ALL_BUT_BADPIX,
  mask='depth 0.1 .. 1.5 m',
  low=0.1,
  high=1.5,
  published=(
    _row('Won and Jeon', _FOD, _WON, _FOD_SPLITS, mse=8.68e-3, rms=0.0859, abs_rel=0.08, sqr_rel=0.0130),
    _row(
      'AiFDepthNet', _FOD, _AIF, _FOD_SPLITS, mse=1.27e-2, rms=0.1043, mae=0.0549, abs_rel=0.1115, sqr_rel=0.0187
    ),
    _row(
      'DefocusNet', _FOD, _AIF, _FOD_SPLITS, mse=1.75e-2, rms=0.1207, mae=0.0637, abs_rel=0.1386, sqr_rel=0.0331
    ),
    _row(
      'DFV', 'FoD500 test, depth above 0, prediction and truth clipped to 1.5 m', _DFV, mse=0.0188, rms=0.129,
      mae=0.077, bumpiness=1.43,
    ),
  ),
)  # fmt: skip

HCI4D = Protocol(
  unit='px',
  names=('mse', 'rms', 'mae', 'bumpiness'),  # signed: neither logarithms nor ratios
  mask='disparity -2.5 .. 2.5 px',
  low=-2.5,
  high=2.5,
  published=(
    _row('AiFDepthNet', _HCI, _AIF, _HCI_SPLITS, mse=0.0472, rms=0.2014, bumpiness=1.58),
    _row('AiFDepthNet, by all-in-focus only', _HCI, _AIF, _HCI_SPLITS, mse=0.0746, rms=0.2398, bumpiness=2.58),
    _row('DefocusNet', _HCI, _AIF, _HCI_SPLITS, mse=0.0593, rms=0.2355, bumpiness=2.69),
  ),
)

_STEREO = ('mae', 'mse', 'rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3')
FLYINGTHINGS = Protocol(unit='px', names=_STEREO, mask='wherever the disparity is known')
MIDDLEBURY = Protocol(
  unit='px',
  names=_STEREO,
  mask='disparity 10 .. 60 px',
  published=(
    _row(
      'Won and Jeon', _MIDDLEBURY, _WON, _MIDDLEBURY_SPLITS, mae=1.645, mse=9.178, rms=2.930, abs_rel=0.068,
      sqr_rel=0.376,
    ),
    _row(
      'AiFDepthNet', _MIDDLEBURY, f'{_AIF}; as quoted by others', _MIDDLEBURY_SPLITS, mae=3.825, mse=58.570, rms=5.936,
      abs_rel=0.165, sqr_rel=3.039,
    ),
  ),
)  # fmt: skip

SMARTPHONE = Protocol(
  unit='1/m',
  names=_ERRORS,
  mask='1 / depth within the focus range, weighted by the confidence of the depth, in the centre of 336 x 252 px',
  centre=(336, 252),
)
MOBILE_DEPTH = Protocol(unit=None, names=(), mask='no depth is known')
SIMULATED = Protocol(
  unit='focus range',
  names=_ERRORS,
  mask='depth within the focus range; relative to it, for cameras differ in their units',
  relative=True,
)
FOLDER = Protocol(unit=None, names=_ALL_BUT_BADPIX, mask='wherever the depth is known')

_PROTOCOLS = {
  'ddff12': DDFF12,
  'examples': DDFF12,
  'flyingthings_fs': FLYINGTHINGS,
  'fod500': FOD500,
  'hci4d': HCI4D,
  'middlebury_fs': MIDDLEBURY,
  'mobile_depth': MOBILE_DEPTH,
  'simulated': SIMULATED,
  'smartphone': SMARTPHONE,
}


def protocol_of(dataset: str) -> Protocol:
  """The protocol of a source, named as in `data.sources.open_source`; sources without their own use that of folders."""
  return _PROTOCOLS.get(dataset.partition('/')[0], FOLDER)
