"""Ray-traced scenes: the lens against direct sums, a rendered scene against its geometry, the command."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.raytraced import RaytracedScenes
from focal_jax.errors import InputError
from tfds_ddff.raytraced import lens

VIEWS = 5


def views_of_plane(texture, disparity_px):
  """Views of a plane: its texture moves by whole pixels from view to view, against the position on the lens."""
  step = disparity_px // (VIEWS - 1)
  steps = range(-(VIEWS // 2), VIEWS // 2 + 1)
  return np.array([[np.roll(texture, (-step * i, -step * j), (0, 1)) for j in steps] for i in steps], np.float32)


def test_lens_focused_on_a_plane_shows_its_texture():
  texture = np.random.default_rng(0).random((16, 12, 3))
  weights = lens.aperture_weights('disc', VIEWS)
  for disparity in (0, 4, -8):
    views = lens.transform(views_of_plane(texture, disparity))
    (frame,) = lens.refocus(views, 12, weights, np.array([float(disparity)]))
    np.testing.assert_allclose(frame, texture, atol=1e-5)


def test_defocus_is_the_mean_over_the_aperture():
  texture = np.random.default_rng(1).random((16, 12, 3))
  weights = lens.aperture_weights('disc', VIEWS, radius=0.8)
  views = views_of_plane(texture, 4)
  (frame,) = lens.refocus(lens.transform(views), 12, weights, np.array([12.0]), np.array([[2.0, 1.0]]))
  direct = sum(
    weights[i, j] * np.roll(views[i, j], (3 * (i - 2) + 1, 3 * (j - 2) + 2), (0, 1))
    for i in range(VIEWS)
    for j in range(VIEWS)
  )
  np.testing.assert_allclose(frame, direct, atol=1e-5)


def test_lens_blur_is_gaussian():
  point = np.zeros((32, 32, 3))
  point[16, 16] = 1.0
  views = lens.transform(views_of_plane(point, 0))
  (frame,) = lens.refocus(views, 32, lens.aperture_weights('disc', VIEWS), np.array([0.0]), blur_px=1.5)
  distance = np.arange(32) - 16
  expected = np.exp(-(distance**2) / (2 * 1.5**2)) / (1.5 * np.sqrt(2 * np.pi))
  np.testing.assert_allclose(frame[..., 0], np.outer(expected, expected), atol=1e-5)


@pytest.mark.parametrize(('kind', 'area'), [('disc', np.pi / 4), ('polygon', 3 * np.sqrt(3) / 8)])
def test_area_of_apertures(kind, area):
  # Views at the rim count partly, so the share of views is the share of the area; a hexagon reaches radius 1.
  n = 41
  weights = lens.aperture_weights(kind, n, corners=6)
  assert weights.sum() == pytest.approx(1)
  share = 1 / weights.max() / n**2
  assert share == pytest.approx(area, rel=0.06)  # the grid's outermost cells lie half outside the square


def test_apertures_of_light_fields():
  np.testing.assert_allclose(lens.aperture_weights('grid', 3), 1 / 9)
  weights = lens.aperture_weights('views', 7)
  assert np.count_nonzero(weights) == 16
  np.testing.assert_allclose(weights[::2, ::2], 1 / 16)
  with pytest.raises(ValueError, match="'square' is no aperture, expected one of disc"):
    lens.aperture_weights('square', 7)


@pytest.fixture(scope='module')
def mitsuba():
  module = pytest.importorskip('mitsuba', reason='Mitsuba is not installed')
  module.set_variant('scalar_rgb')  # needs no compiler
  return module


def test_rendered_planes_are_sharp_at_their_depth(mitsuba, monkeypatch):
  from tfds_ddff.raytraced import render
  from tfds_ddff.raytraced.scenes import Camera

  # A nearer plane in the upper left quarter, a farther one behind it, both with a fine texture.
  camera, size, margin = Camera(56, 30.0), 32, 12
  texture = np.random.default_rng(2).uniform(0.1, 0.9, (64, 64, 1)).repeat(3, -1).astype(np.float32)
  transform = mitsuba.ScalarTransform4f

  def plane(x, y, z, half):
    place = transform().translate([x, y, z]).rotate([0, 1, 0], 180).scale(half)
    bitmap = {'type': 'bitmap', 'bitmap': mitsuba.Bitmap(texture), 'raw': True, 'filter_type': 'nearest'}
    return {'type': 'rectangle', 'to_world': place, 'bsdf': {'type': 'diffuse', 'reflectance': bitmap}}

  near, far = 1.0, 2.0
  half = camera.length(28, far)
  quarter = camera.length(28, near) / 2
  scene = {
    'type': 'scene',
    'integrator': {'type': 'path', 'max_depth': 2},
    'sky': {'type': 'constant'},
    'near': plane(quarter, quarter, near, quarter),  # x grows to the left
    'far': plane(0, 0, far, half),
  }
  monkeypatch.setattr(render, 'draw_scene', lambda rng, size_px, photographs: (camera, scene))
  monkeypatch.setattr(render, 'OPTICS', (render.Optics(1.0, (8.0, 8.0), {'disc': 1.0}, views=9),))
  monkeypatch.setattr(render, '_positions', lambda rng: np.linspace(0, 1, 5))
  monkeypatch.setattr(render, '_shake', lambda rng: np.zeros((5, 2)))
  result = render.render_scene(0, [], size, margin, samples=4)

  middle = size // 2
  expected = np.full((size, size), 1 / far)
  expected[:middle, :middle] = 1 / near
  np.testing.assert_allclose(result['inverse_depth'], expected, rtol=1e-4)
  np.testing.assert_allclose(result['focus'], np.linspace(1 / far, 1 / near, 5) * np.ones((2, 1)), rtol=1e-4)
  light = result['light'][0].astype(np.float32)
  contrast = np.abs(np.diff(light[..., 0], axis=-1))
  assert contrast[:, 2 : middle - 8, 2 : middle - 8].mean((1, 2)).argmax() == 4
  assert contrast[:, middle + 8 : -2, middle + 8 : -2].mean((1, 2)).argmax() == 0


def test_same_number_same_scene(mitsuba):
  from tfds_ddff.raytraced.render import render_scene

  photographs = [np.random.default_rng(3).integers(0, 256, (200, 220, 3), np.uint8)]
  first, again, other = (render_scene(n, photographs, 16, 6, views=3, samples=1) for n in (4, 4, 5))
  assert first['light'].shape == (2, 20, 16, 16, 3)
  assert first['light'].dtype == np.float16
  np.testing.assert_array_equal(first['light'], again['light'])
  assert not np.array_equal(first['inverse_depth'], other['inverse_depth'])
  assert np.all(np.diff(first['focus'], axis=1) > 0)


def test_scenes_of_all_optics(mitsuba, monkeypatch):
  from tfds_ddff.raytraced import render

  assert sum(optics.share for optics in render.OPTICS) == 1
  photographs = [np.random.default_rng(3).integers(0, 256, (200, 220, 3), np.uint8)]
  for optics in render.OPTICS:
    assert sum(optics.apertures.values()) == pytest.approx(1)
    assert set(optics.apertures) <= set(lens.APERTURES)
    monkeypatch.setattr(render, 'OPTICS', (dataclasses.replace(optics, share=1.0),))
    scene = render.render_scene(0, photographs, 16, 6, views=3, samples=1)
    assert set(scene['aperture']) <= set(optics.apertures)
    assert optics.blur_px[0] <= scene['blur_px'][0] <= optics.blur_px[1]


def test_scenes_of_every_layout(mitsuba, monkeypatch):
  from tfds_ddff.raytraced import scenes

  photographs = [np.random.default_rng(3).integers(0, 256, (200, 220, 3), np.uint8)]
  own = {'wall': 'slope', 'table': 'table', 'room': 'lamp', 'relief': 'relief', 'gaps': 'object2', 'studio': 'object0'}
  for layout in tuple(scenes.LAYOUTS):
    monkeypatch.setattr(scenes, 'LAYOUTS', {layout: 1.0})
    _, plugins = scenes.draw_scene(np.random.default_rng(1), 24, photographs)
    mitsuba.load_dict(plugins)
    assert {'backdrop', 'sky', own[layout]} <= set(plugins)
    if layout == 'studio':
      colours = [value for key, value in plugins['backdrop']['bsdf']['bsdf'].items() if key.endswith('reflectance')]
      assert [colour['type'] for colour in colours] == ['rgb'], 'the backdrop is not plain'
  for kind in scenes.TEXTURES:
    texture = scenes.draw_texture(np.random.default_rng(0), kind, photographs)
    assert texture.shape[-1] == 3
    assert 0 < texture.min() <= texture.max() <= 1


def test_command(tmp_path, mitsuba):
  photographs, out = tmp_path / 'photographs', tmp_path / 'out'
  photographs.mkdir()
  Image.fromarray(np.random.default_rng(3).integers(0, 256, (200, 220, 3), np.uint8)).save(photographs / 'a.png')
  from tfds_ddff.raytraced import __main__ as command
  from tfds_ddff.raytraced import render

  small = {'size_px': 16, 'margin_px': 6, 'views': 3, 'samples': 1}
  render_scene = render.render_scene
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(render, 'render_scene', lambda number, pictures: render_scene(number, pictures, **small))
    assert command.render_scenes(out, range(2), f'folder:{photographs}', 'scalar_rgb') == 2
    before = (out / '00001.npz').stat().st_mtime_ns
    assert command.render_scenes(out, range(1, 3), f'folder:{photographs}', 'scalar_rgb') == 1
  assert (out / '00001.npz').stat().st_mtime_ns == before
  assert sorted(path.name for path in out.iterdir()) == ['00000.npz', '00001.npz', '00002.npz']
  assert [scene['name'] for scene in RaytracedScenes(out)] == ['00000', '00001', '00002']
  assert command.picture(out).is_file()


def test_command_without_photographs(tmp_path):
  command = [sys.executable, '-m', 'tfds_ddff.raytraced', f'--out={tmp_path / "out"}', f'--textures={tmp_path}']
  ended = subprocess.run(command, capture_output=True, text=True)
  assert ended.returncode == 2
  assert f'{tmp_path}: found no pictures' in ended.stderr
  assert 'Traceback' not in ended.stderr
  assert not (tmp_path / 'out').exists()


def test_damaged_scenes(tmp_path):
  with pytest.raises(InputError, match=r'found no \.npz files, expected scenes'):
    RaytracedScenes(tmp_path)
  (tmp_path / 'a.npz').write_bytes(b'PK')
  np.savez(tmp_path / 'b.npz', light=np.zeros((1, 4, 8, 8, 3)), focus=np.zeros((1, 4)))
  np.savez(tmp_path / 'c.npz', light=np.zeros((1, 4, 8, 8, 3)), focus=np.zeros((1, 3)), inverse_depth=np.zeros((8, 8)))
  scenes = RaytracedScenes(tmp_path)
  for index, message in enumerate((r'a\.npz: cannot be read', r'b\.npz: cannot be read', r'c\.npz: light \(1, 4, 8')):
    with pytest.raises(InputError, match=message):
      scenes[index]
