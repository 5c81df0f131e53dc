"""Depth of reduced frames at full size: results, and memory."""

import json
import weakref

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from focal_jax.data.folder import FolderStack, read_stack_folder
from focal_jax.data.frames import FrameReader
from focal_jax.prediction.full_size import full_size
from focal_jax.prediction.predict import Options, predict_folder
from focal_jax.stack import Prediction

HEIGHT, WIDTH, FRAMES = 300, 400, 8
ZOOMS = 1 + 0.004 * np.arange(FRAMES)[::-1]


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
  """Frames with breathing and distances of a wall that comes nearer to the right, and its all-in-focus picture."""
  folder = tmp_path_factory.mktemp('slope')
  rng = np.random.default_rng(0)
  texture = sum(ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), s) * s for s in (1, 2, 4, 8))
  texture = np.clip(0.5 + 0.15 * texture / texture.std(), 0, 1)
  depth = np.linspace(0.5, FRAMES - 1.5, WIDTH)[None].repeat(HEIGHT, 0)
  blurred = np.stack([ndimage.gaussian_filter(texture, 0.25 * k) for k in range(4 * FRAMES)])
  centre = (np.array(texture.shape) - 1) / 2
  for n, zoom in enumerate(ZOOMS):
    index = np.rint(np.abs(depth - n) * 3).astype(int)
    frame = np.take_along_axis(blurred, index[None], 0)[0]
    frame = ndimage.affine_transform(frame, np.full(2, 1 / zoom), centre * (1 - 1 / zoom), order=3, mode='mirror')
    frame = np.clip(frame + rng.normal(0, 0.004, frame.shape), 0, 1)
    Image.fromarray(np.repeat(np.rint(255 * frame).astype(np.uint8)[..., None], 3, -1)).save(folder / f'{n}.png')
  rows = [f'{n}.png,{1 / (1 + 0.2 * n)}' for n in range(FRAMES)]
  lines = ['file,focus_distance_m', *rows]
  (folder / 'metadata.csv').write_text('\n'.join(lines) + '\n')
  return folder, 1 + 0.2 * depth, texture


def predicted(folder, out, **options):
  prediction = predict_folder(folder, out, Options(method='classical', **options))
  return prediction, json.loads((out / 'summary.json').read_text()), np.load(out / 'depth.npy')


@pytest.mark.slow
def test_as_depth_in_full_size_and_as_the_truth(scene, tmp_path):
  folder, truth, texture = scene
  direct, of_direct, depth = predicted(folder, tmp_path / 'direct', max_side=None, depth_side=None)
  prediction, summary, enlarged = predicted(folder, tmp_path / 'enlarged', max_side=None, depth_side=WIDTH // 2)
  assert direct.depth.shape == depth.shape == enlarged.shape == (HEIGHT, WIDTH)
  assert prediction.depth.shape == (HEIGHT // 2, WIDTH // 2)
  inner = np.s_[20:-20, 20:-20]
  step = 0.2  # dioptres between frames
  assert np.abs(enlarged - truth)[inner].mean() < 0.3 * step
  assert np.abs(enlarged - depth)[inner].mean() < 0.3 * step
  for field in ('size_px', 'frames', 'focus', 'depth_unit'):
    assert summary[field] == of_direct[field]
  for area in ('left', 'top', 'width', 'height'):
    assert summary['common_area'][area] == pytest.approx(of_direct['common_area'][area], abs=1)
  motions = [json.loads((tmp_path / name / 'motion.json').read_text()) for name in ('direct', 'enlarged')]
  assert motions[0]['size_px'] == motions[1]['size_px'] == [HEIGHT, WIDTH]
  np.testing.assert_allclose(*(np.array(motion['motion'])[:, 0] for motion in motions), atol=5e-4)
  np.testing.assert_allclose(*(np.array(motion['motion'])[:, 1:] for motion in motions), atol=0.15)
  picture, frame = (
    np.asarray(Image.open(tmp_path / 'enlarged' / name)) for name in ('all_in_focus.png', 'aligned/0.png')
  )
  assert picture.shape == frame.shape == (HEIGHT, WIDTH, 3)
  # By enlarging reduced frames it would be as wrong as the texture is by being reduced and enlarged.
  halved = Image.fromarray(texture.astype(np.float32)).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)
  soft = np.asarray(halved.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
  error = np.abs(picture[..., 0] / 255 - texture)[inner].mean()
  assert error < np.abs(soft - texture)[inner].mean()


def test_no_file_is_larger_than_max_side(scene, tmp_path):
  _, summary, depth = predicted(scene[0], tmp_path / 'out', max_side=200, depth_side=100)
  assert summary['size_px'] == [150, 200]
  assert depth.shape == (150, 200)
  with Image.open(tmp_path / 'out' / 'aligned' / '0.png') as image:
    assert image.size == (200, 150)


@pytest.mark.slow
def test_surface_has_the_camera_of_the_whole_frames(scene, tmp_path):
  """A region off the centre, whose principal point and focal length are in px of what is predicted."""
  folder = scene[0]
  region = (100, 40, 280, 200)
  options = {'max_side': None, 'region': region}
  summaries = [
    predicted(folder, tmp_path / str(side), depth_side=side, **options)[1]['surface'] for side in (None, 140)
  ]
  assert summaries[0]['focal_length_px'] == pytest.approx(summaries[1]['focal_length_px'], rel=1e-6)
  points = [np.fromfile(tmp_path / str(side) / 'points.ply', np.uint8) for side in (None, 140)]
  means = []
  for data in points:
    header = data.tobytes().index(b'end_header\n') + len(b'end_header\n')
    rows = np.frombuffer(data.tobytes()[header:], [('xyz', '<f4', 3), ('rgb', 'u1', 3)])
    means.append((rows['xyz'][:, :2] / rows['xyz'][:, 2:]).mean(0))
  np.testing.assert_allclose(*means, atol=0.02)


def test_frames_are_not_all_in_memory(scene, monkeypatch, tmp_path):
  """Whole frames are read one at a time; a few are alive at once, however many there are."""
  alive, most, reads = weakref.WeakSet(), [0], []
  read = FrameReader.read

  class Frame(np.ndarray):
    """An array whose instances are counted."""

    __hash__ = object.__hash__

  def counted(self, index, max_side=None):
    frame = read(self, index, max_side).view(Frame)
    alive.add(frame)
    reads.append(index)
    most[0] = max(most[0], len(alive))
    return frame

  monkeypatch.setattr(FrameReader, 'read', counted)
  for only_align in (False, True):
    options = Options(method='classical', max_side=None, depth_side=100, only_align=only_align)
    predict_folder(scene[0], tmp_path / str(only_align), options)
  assert reads == 2 * list(range(FRAMES))
  assert most[0] <= 3


def test_an_error_of_saving_ends_it(scene):
  stack = read_stack_folder(scene[0], max_side=100)

  def save(index, frame):
    if index == 2:
      raise OSError(28, 'No space left on device')

  with pytest.raises(OSError, match='No space left'):
    full_size(stack, None, np.zeros((FRAMES, 3), np.float32), None, save)


def test_static_content_is_left_out_where_a_frame_is_without_it():
  """Dust, which moves across aligned frames, and in one place is in all of them."""
  frames, size = 5, (48, 64)
  texture = np.random.default_rng(0).integers(90, 110, (*size, 1), dtype=np.uint8).repeat(3, -1)
  images, dust = texture[None].repeat(frames, 0), np.zeros((frames, *size), bool)
  for n in range(frames):
    dust[n, 10:16, 10 + 8 * n : 16 + 8 * n] = True  # a frame far from the depth is without it
  dust[:, 30:34, 30:34] = True
  images[dust] = 0
  names = [f'{n}.png' for n in range(frames)]
  stack = FolderStack(
    images, np.arange(frames, dtype=float), np.ones(frames), 'frame index', names, [], None, None, (0.0, 0.0)
  )
  prediction = Prediction(
    depth=np.full(size, 4.0, np.float32),
    confidence=np.ones(size, np.float32),
    aligned=images / np.float32(255),
    coverage=np.ones((frames, *size), np.float32),
    motion=np.zeros((frames, 3), np.float32),
  )
  expected = texture.copy()
  expected[30:34, 30:34] = 0
  np.testing.assert_allclose(full_size(stack, prediction, None, static=list(dust)).all_in_focus, expected, atol=1)
  usual = full_size(stack, prediction, None).all_in_focus
  assert np.abs(usual.astype(int) - expected).max() > 50
