"""The benchmark of alignment, on frames of a known motion."""

import numpy as np
import programs
import pytest
from scipy import ndimage

from benchmarks import alignment
from focal_jax.align import motion
from focal_jax.errors import InputError
from focal_jax.models.end_to_end import init_variables
from focal_jax.models.npz_file import save_weights
from focal_jax.models.registry import make_model


@pytest.fixture(scope='module')
def frames():
  """A still sweep of noise of several scales, [4, 264, 328, 3], blurred more and more."""
  rng = np.random.default_rng(0)
  noise = sum(ndimage.gaussian_filter(rng.standard_normal((264, 328)), s) * s for s in (1.2, 2.5, 5, 10))
  picture = np.clip(128 + 40 * noise / noise.std(), 0, 255)
  blurred = [ndimage.gaussian_filter(picture, sigma) for sigma in (2, 1.5, 1, 0)]
  return np.rint(np.stack(blurred))[..., None].repeat(3, -1).astype(np.uint8)


def test_warp_undoes_the_known_motion(frames):
  known = alignment.known_motion(len(frames), 1.04, 2.0, seed=1)
  np.testing.assert_array_equal(known[-1], 0)
  assert known[0, 0] == pytest.approx(-0.04)
  back, coverage = motion.align(alignment.move(frames, known), known)
  m = alignment.MARGIN_PX
  error = np.abs(back.astype(float) - frames[:, m:-m, m:-m])[coverage > 0.999]
  assert error.mean() < 1.5
  # The last frame has not moved.
  np.testing.assert_allclose(back[-1], frames[-1, m:-m, m:-m], atol=1)


def test_errors_without_alignment_and_with_measured_alignment(frames):
  methods = alignment.estimators(['none', 'measured'], None, {})
  errors = alignment.measure_known(frames, methods, [0.95, 1.05], 2.0)
  height, width = (length - 2 * alignment.MARGIN_PX for length in frames.shape[1:3])
  known = alignment.known_motion(len(frames), 0.95, 2.0, seed=0)[:-1].astype(float)
  u, v = (np.linspace(-1, 1, n) for n in (width, height))
  square = [np.mean((width // 2 * a * u + b) ** 2) + np.mean((height // 2 * a * v + c) ** 2) for a, b, c in known]
  assert errors['none']['by_zoom']['0.95'] == pytest.approx(np.mean(np.sqrt(square)), abs=1e-3)
  assert max(errors['measured']['by_zoom'].values()) < 0.1
  assert errors['measured']['corrected'] < 0.1
  left = alignment.measure_sweep(alignment.move(frames, alignment.known_motion(4, 0.95, 2.0, 0)), methods)
  assert left['none']['zoom_range'] == pytest.approx(1 / 0.95, abs=2e-3)
  assert left['measured']['zoom_range'] < 1.001
  assert left['measured']['frames_measured'] == left['measured']['frames'] == 4


def test_bad_arguments(tmp_path):
  with pytest.raises(InputError, match="--methods has 'best', expected some of none, network, measured"):
    alignment.estimators(['none', 'best'], None, {})
  with pytest.raises(InputError, match="--weights is 'classical', expected a weights file of a network"):
    alignment.open_network('classical', {})
  with pytest.raises(InputError, match='no such weights file'):
    alignment.open_network(str(tmp_path / 'none.npz'), {})
  described = {'depth': {'name': 'curves'}, 'align': {'name': 'none'}}
  path = tmp_path / 'depth.npz'
  save_weights(path, init_variables(make_model(described), 0), {'model': described})
  with pytest.raises(InputError, match='has no alignment network'):
    alignment.open_network(str(path), {})


def test_flags_override_passes_and_side_of_the_weights(tmp_path):
  described = {'depth': {'name': 'curves'}, 'align': {'name': 'fitted'}}
  path = tmp_path / 'fitted.npz'
  save_weights(path, init_variables(make_model(described), 0), {'model': described})
  network = alignment.open_network(str(path), {'motion_passes': 3, 'motion_side_px': 64}).network
  assert (network.alignment.passes, network.motion_side_px) == (3, 64)
  with pytest.raises(InputError, match=r'model\.align\.passes is 0, expected one of 1, 2, 3, 4'):
    alignment.open_network(str(path), {'motion_passes': 0})


@pytest.mark.parametrize(
  ('flags', 'status', 'said'),
  [
    (['--stacks=/nowhere', '--methods=none'], 0, 'Nothing was measured: there is no folder /nowhere'),
    (['--zooms=2'], 2, "benchmarks.alignment: error: --zooms is '2', expected numbers from 0.8 to 1.25"),
    (['--max_side=20'], 2, 'benchmarks.alignment: error: --max_side is 20, expected at least 128'),
  ],
)
def test_program(flags, status, said):
  done = programs.run('-m', 'benchmarks.alignment', *flags)
  assert done.returncode == status
  assert said in done.stdout + done.stderr
