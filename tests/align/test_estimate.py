"""The argument `align` of every predictor, and motion measured in reduced frames."""

import jaxtyping
import numpy as np
import pytest
from local_network import CellDepth, local_model
from scipy import ndimage

import focal_jax
from focal_jax import InputError
from focal_jax.align import estimate
from focal_jax.evaluation.methods import ConstantPredictor, CorrectedFocus
from focal_jax.models.alignment import MetadataAlignment, NoAlignment
from focal_jax.models.end_to_end import EndToEnd
from focal_jax.prediction.network_predictor import NetworkPredictor
from focal_jax.prediction.predictor import Predictor

SIZE = (192, 256)
SHIFTS = np.array([(6.0, -4.0), (2.5, 1.0), (0.0, 0.0)])  # (x, y) px of the content against the last frame
FOCUS, FOV = np.arange(3.0), np.float32([1.02, 1.01, 1.0])


@pytest.fixture(scope='module')
def frames():
  rng = np.random.default_rng(0)
  texture = sum(ndimage.gaussian_filter(rng.standard_normal((SIZE[0] + 32, SIZE[1] + 32)), s) * s for s in (1, 2, 4))
  texture = np.clip(0.5 + 0.15 * texture / texture.std(), 0, 1)
  moved = [ndimage.shift(texture, shift[::-1], order=3, mode='mirror')[16:-16, 16:-16] for shift in SHIFTS]
  return np.round(255 * np.stack([np.stack(moved)] * 3, -1).clip(0, 1)).astype(np.uint8)


def without_alignment(alignment):
  return NetworkPredictor('some.npz', EndToEnd(CellDepth(), alignment), {}, {}, [])


PREDICTORS = {
  'network': local_model(),
  'unaligned network': without_alignment(NoAlignment()),
  'classical': focal_jax.load('classical'),
  'corrected focus': CorrectedFocus(local_model(), 0.5),
  'constant': ConstantPredictor(1.0),
}


of_each = pytest.mark.parametrize('predictor', PREDICTORS.values(), ids=PREDICTORS)


@of_each
def test_predictors_have_all_attributes(predictor):
  assert isinstance(predictor, Predictor)
  for attribute in Predictor.__annotations__:  # also those without a default
    assert hasattr(predictor, attribute), attribute


@of_each
@pytest.mark.parametrize('align', [True, False, None, 'maybe'])
def test_unknown_alignments_are_refused(predictor, align, frames, monkeypatch):
  monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)  # a program's own calls are not checked
  for call in (predictor.predict, predictor.estimate_motion):
    with pytest.raises(InputError) as error:
      call(frames, FOCUS, FOV, align)
    assert str(error.value) == f'align is {align!r}, expected one of measured, network, metadata, off'


@of_each
def test_measured_motion_is_the_default_of_every_predictor(predictor, frames):
  motion = predictor.estimate_motion(frames, FOCUS)
  np.testing.assert_allclose(motion[:, 1:], -SHIFTS, atol=0.1)  # what undoes the shift
  np.testing.assert_allclose(motion[:, 0], 0, atol=1e-3)
  if predictor.reads_images:
    np.testing.assert_array_equal(predictor.predict(frames, FOCUS).motion, motion)


@of_each
def test_metadata_and_off(predictor, frames):
  assert predictor.estimate_motion(frames, FOCUS, FOV, 'off') is None
  np.testing.assert_array_equal(predictor.estimate_motion(frames, FOCUS, FOV, 'metadata'), np.zeros((3, 3)))
  cropped, given = (
    predictor.predict(frames, FOCUS, FOV, 'metadata'),
    predictor.predict(frames, FOCUS, FOV, motion=np.zeros((3, 3))),
  )
  np.testing.assert_array_equal(cropped.aligned, given.aligned)
  as_given = predictor.predict(frames, FOCUS, FOV, 'off')
  np.testing.assert_allclose(as_given.aligned, frames / 255, atol=1e-6)
  assert (np.abs(cropped.aligned - as_given.aligned).max() > 0.1) == predictor.reads_images


@pytest.mark.parametrize(
  'predictor',
  [without_alignment(NoAlignment()), without_alignment(MetadataAlignment()), focal_jax.load('classical')],
  ids=['none', 'metadata', 'classical'],
)
def test_align_network_needs_an_alignment_network(predictor, frames):
  assert not predictor.has_alignment_network
  for call in (predictor.predict, predictor.estimate_motion):
    with pytest.raises(InputError) as error:
      call(frames, FOCUS, FOV, 'network')
    assert str(error.value) == (
      f"{predictor.name}: has no alignment network and align is 'network', expected measured, metadata or off"
    )


def test_motion_measured_in_reduced_frames_is_in_px_of_the_frames(frames, monkeypatch):
  monkeypatch.setattr(estimate, 'MEASURED_SIDE_PX', 200)
  motion = focal_jax.load('classical').estimate_motion(frames, FOCUS)
  np.testing.assert_allclose(motion[:, 1:], -SHIFTS, atol=0.1)
