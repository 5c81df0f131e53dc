"""`--mode=predict` of frames that are turned, in the wrong order or not of the series: what alignment writes."""

import json
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image
from scipy import ndimage

from focal_jax import InputError
from focal_jax.align.sharpness_order import order_by_sharpness
from focal_jax.prediction.predict import Options, predict_folder
from focal_jax.prediction.results import aligned_files

HEIGHT, WIDTH, MARGIN = 192, 256, 32


@pytest.fixture(scope='module')
def canvas():
  rng = np.random.default_rng(0)
  shape = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
  texture = sum(ndimage.gaussian_filter(rng.normal(size=shape), s) * s for s in (1, 2, 4))
  return np.clip(0.5 + 0.15 * texture / texture.std(), 0, 1)


def photograph(canvas, path, zoom=1.0, degrees=0.0, blur_px=0.0):
  """Content `zoom` times as large, turned clockwise about the centre, and blurred."""
  angle = np.deg2rad(degrees)
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom  # of (y, x), backwards
  centre = (np.array(canvas.shape) - 1) / 2
  frame = ndimage.affine_transform(canvas, turn, centre - turn @ centre, order=3, mode='mirror')
  frame = ndimage.gaussian_filter(frame, blur_px) if blur_px else frame
  grey = np.round(255 * np.clip(frame[MARGIN:-MARGIN, MARGIN:-MARGIN], 0, 1)).astype(np.uint8)
  Image.fromarray(np.stack([grey] * 3, -1)).save(path)


def aligned(folder, out, **options):
  """The summary and motion.json of `--only_align`."""
  predict_folder(folder, out, Options(method='classical', only_align=True, **options))
  return [json.loads((out / name).read_text()) for name in ('summary.json', 'motion.json')]


@pytest.fixture(scope='module')
def turned(canvas, tmp_path_factory):
  folder = tmp_path_factory.mktemp('turned')
  for n, degrees in enumerate((-2.0, -1.0, 0.0)):
    photograph(canvas, folder / f'a_{n}.png', degrees=degrees, blur_px=1.0 - 0.5 * n)
  return folder


def test_rotation_is_undone_and_told(turned, tmp_path):
  summary, motion = aligned(turned, tmp_path)
  assert summary['residual_motion']['before']['rotation_range_deg'] == pytest.approx(2.0, abs=0.05)
  assert summary['residual_motion']['after']['rotation_range_deg'] < 0.03
  assert summary['residual_motion']['after']['rms_px'] < 0.1
  np.testing.assert_allclose(motion['rotation_deg'], [-2.0, -1.0, 0.0], atol=0.05)
  first, last = (np.asarray(Image.open(tmp_path / 'aligned' / f'a_{n}.png'), float) for n in (0, 2))
  inner = np.s_[16:-16, 16:-16]
  assert np.abs(ndimage.gaussian_filter(last, (1, 1, 0)) - first)[inner].mean() < 2.0


def test_common_area_is_what_all_frames_show(canvas, tmp_path):
  """Of the far frame, which is larger, the borders are missing once it is aligned."""
  photograph(canvas, tmp_path / 'a_0.png', zoom=1.1)
  photograph(canvas, tmp_path / 'a_1.png')
  summary, _ = aligned(tmp_path, tmp_path / 'out', far_to_near=True)
  area = summary['common_area']
  assert area['left'] == pytest.approx(WIDTH * (1 - 1 / 1.1) / 2, abs=2)
  assert area['top'] == pytest.approx(HEIGHT * (1 - 1 / 1.1) / 2, abs=2)
  assert area['width'] == pytest.approx(WIDTH / 1.1, abs=3)
  assert area['height'] == pytest.approx(HEIGHT / 1.1, abs=3)
  first = np.asarray(Image.open(tmp_path / 'out' / 'aligned' / 'a_0.png'))
  rows, columns = (slice(area[at], area[at] + area[size]) for at, size in (('top', 'height'), ('left', 'width')))
  shown = first[rows, columns]
  for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]):
    assert edge.mean() > 60  # black outside


def test_motion_of_another_series_is_taken_in_order(turned, canvas, tmp_path):
  """A second light: other pictures of the same movement, under other names."""
  for n, degrees in enumerate((-2.0, -1.0, 0.0)):
    photograph(1 - canvas**2, (tmp_path / f'b_{n}.png'), degrees=degrees)
  _, motion = aligned(turned, tmp_path / 'first')
  summary, again = aligned(tmp_path, tmp_path / 'second', motion=tmp_path / 'first' / 'motion.json')
  assert again['motion'] == motion['motion']
  assert again['rotation_deg'] == pytest.approx(motion['rotation_deg'], abs=1e-4)
  assert summary['residual_motion']['after']['rotation_range_deg'] < 0.05
  assert any('applied to these frames in name order' in note for note in summary['notes'])


@pytest.mark.parametrize('prefix', ['a', 'b'])
def test_motion_brings_its_order_along(canvas, tmp_path, prefix):
  """The first light tells by its zoom that it goes near to far; the second, too plain to measure, does not."""
  (tmp_path / 'first').mkdir()
  (tmp_path / 'second').mkdir()
  for n, zoom in enumerate((1.04, 1.02, 1.0)):
    photograph(canvas, tmp_path / 'first' / f'a_{n}.png', zoom=zoom, blur_px=0.5 * n)
    photograph(0 * canvas + 0.1 * n, tmp_path / 'second' / f'{prefix}_{n}.png')
  _, motion = aligned(tmp_path / 'first', tmp_path / 'out')
  assert motion['frames'] == ['a_2.png', 'a_1.png', 'a_0.png']
  path = tmp_path / 'out' / 'motion.json'
  summary, again = aligned(tmp_path / 'second', tmp_path / 'out2', motion=path)
  assert again['frames'] == [f'{prefix}_{n}.png' for n in (2, 1, 0)]
  np.testing.assert_allclose(again['motion'], motion['motion'], atol=1e-5)
  assert any('reversed to match the order in motion.json' in note for note in summary['notes'])
  with pytest.raises(InputError, match='aligns to'):
    aligned(tmp_path / 'second', tmp_path / 'out3', motion=path, far_to_near=True)


def test_motion_of_frames_that_were_left_out_since(turned, canvas, tmp_path):
  _, whole = aligned(turned, tmp_path / 'first')
  path = tmp_path / 'first' / 'motion.json'
  for n, degrees in ((1, -1.0), (2, 0.0)):
    photograph(canvas, tmp_path / f'a_{n}.png', degrees=degrees, blur_px=1.0 - 0.5 * n)
  summary, motion = aligned(tmp_path, tmp_path / 'second', motion=path)
  assert motion['frames'] == ['a_1.png', 'a_2.png']
  np.testing.assert_allclose(motion['rotation_deg'], whole['rotation_deg'][1:], atol=1e-5)
  np.testing.assert_allclose(motion['motion'], whole['motion'][1:], atol=1e-5)
  assert 'motion.json contains the motion of 3 frames, including these 2.' in summary['notes']
  photograph(canvas, tmp_path / 'a_0.png')
  (tmp_path / 'a_2.png').unlink()  # to which the others are aligned
  with pytest.raises(InputError, match=r'aligns to a_2\.png, expected a_1\.png'):
    aligned(tmp_path, tmp_path / 'third', motion=path)


def test_motion_of_more_frames_is_refused(turned, canvas, tmp_path):
  for n in range(2):
    photograph(canvas, tmp_path / f'c_{n}.png')
  aligned(turned, tmp_path / 'first')
  path = tmp_path / 'first' / 'motion.json'
  with pytest.raises(InputError, match='contains the motion of 3 frames, expected 2'):
    aligned(tmp_path, tmp_path / 'second', motion=path)


@pytest.mark.parametrize(
  ('zooms', 'options', 'nearest'),
  [
    ((1.04, 1.02, 1.0), {}, 'a_0.png'),
    ((1.0, 1.02, 1.04), {}, 'a_2.png'),
    ((1.0, 1.0, 1.0), {}, 'a_2.png'),
    ((1.04, 1.02, 1.0), {'far_to_near': True}, 'a_2.png'),
    ((1.0, 1.02, 1.04), {'near_to_far': True}, 'a_0.png'),
  ],
)
def test_without_distances_the_zoom_tells_the_order(canvas, tmp_path, zooms, options, nearest):
  for n, zoom in enumerate(zooms):
    photograph(canvas, tmp_path / f'a_{n}.png', zoom=zoom, blur_px=0.5 * n)
  summary, _ = aligned(tmp_path, tmp_path / 'out', **options)
  assert summary['frames'][-1] == nearest
  told = any('is larger, as at the near end' in note for note in summary['notes'])
  assert told == (not options and zooms[0] != zooms[-1])


def test_a_black_frame_is_no_evidence_of_the_order(canvas, tmp_path):
  for n in range(4):
    photograph(canvas, tmp_path / f'a_{n + 1}.png', zoom=1 - 0.01 * n, blur_px=0.5 * (n > 0))
  Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'a_0.png')
  summary, _ = aligned(sorted(tmp_path.glob('*.png')), tmp_path / 'out')
  assert summary['frames'][-1] == 'a_0.png'
  assert any('a_1.png is larger' in note for note in summary['notes'])
  summary, _ = aligned(tmp_path, tmp_path / 'of_folder')
  assert summary['frames'][-1] == 'a_1.png'
  assert any('Left out: a_0.png' in note for note in summary['notes'])


@pytest.mark.parametrize(
  ('zooms', 'told'),
  [((1.0, 1.015, 1.03, 1.015, 1.0), True), ((1.0, 1.03, 1.015, 1.045), True), ((1.0, 1.015, 1.012, 1.03), False)],
)
def test_frames_out_of_order_are_noted(canvas, tmp_path, zooms, told):
  for n, zoom in enumerate(zooms):
    photograph(canvas, tmp_path / f'a_{n}.png', zoom=zoom, blur_px=0.5)
  summary, _ = aligned(tmp_path, tmp_path / 'out')
  assert any('out of order' in note for note in summary['notes']) == told


ORDERS = {'back and forth': [0, 2, 4, 6, 5, 3, 1], 'shuffled': [4, 0, 5, 2, 6, 1, 3], 'one way': list(range(7))}


@pytest.fixture(scope='module')
def slope(canvas):
  """Photographs of a plane that comes nearer from left to right, the farthest first, as a lens that breathes has them
  and as one that does not.
  """
  place = np.linspace(-1, 7, WIDTH)
  blurred = [
    ndimage.gaussian_filter(canvas, sigma)[MARGIN:-MARGIN, MARGIN:-MARGIN] for sigma in np.arange(0.01, 6, 0.5)
  ]
  frames = {}
  for breathing in (0.006, 0.0):
    frames[breathing] = []
    for n in range(7):
      step = np.round(np.minimum(np.abs(place - n), 5.9) * 2).astype(int)
      sharp = np.choose(np.minimum(step, 11), [picture * np.ones((HEIGHT, 1)) for picture in blurred])
      zoom, centre = 1 + breathing * n, (np.array([HEIGHT, WIDTH]) - 1) / 2
      frame = ndimage.affine_transform(sharp, np.full(2, 1 / zoom), centre * (1 - 1 / zoom), order=3, mode='mirror')
      grey = np.round(255 * np.clip(frame, 0, 1)).astype(np.uint8)
      frames[breathing].append(np.stack([grey] * 3, -1))
  return frames


@pytest.mark.parametrize('name', ORDERS)
def test_where_frames_are_sharp_tells_their_order(slope, name):
  order = ORDERS[name]
  for frames in slope.values():
    found = order_by_sharpness(np.stack([frames[n] for n in order]))
    if name == 'one way':
      assert found is None
      continue
    there = [order[n] for n in found]
    assert there in (list(range(7)), list(range(6, -1, -1)))


@pytest.mark.parametrize('order', [[3, 0, 6], [0, 6, 3], [4, 0, 2, 6], [2, 6, 0, 4]])
def test_so_it_does_of_three_and_four(slope, order):
  for frames in slope.values():
    found = order_by_sharpness(np.stack([frames[n] for n in order]))
    assert [order[n] for n in found] in (sorted(order), sorted(order)[::-1])
    assert order_by_sharpness(np.stack([frames[n] for n in sorted(order)])) is None
    assert order_by_sharpness(np.stack([frames[n] for n in order[:2]])) is None


def test_a_flat_scene_tells_no_order(canvas):
  """Near and far of its focus it is blurred alike."""
  flat = [ndimage.gaussian_filter(canvas, 0.5 * abs(n - 3) + 0.01) for n in range(7)]
  images = np.round(255 * np.stack([np.stack([one] * 3, -1) for one in flat])).astype(np.uint8)
  for order in [*ORDERS.values(), [3, 0, 6], [4, 0, 2, 6]]:
    assert order_by_sharpness(images[order]) is None
  assert order_by_sharpness(np.zeros_like(images)) is None


@pytest.mark.parametrize('name', [pytest.param('back and forth', marks=pytest.mark.slow), 'shuffled', 'one way'])
def test_frames_out_of_order_are_sorted_if_the_zoom_agrees(slope, tmp_path, name):
  for breathing, frames in slope.items():
    folder = tmp_path / str(breathing)
    folder.mkdir()
    for k, n in enumerate(ORDERS[name]):
      Image.fromarray(frames[n]).save(folder / f'{k}.png')
    summary, _ = aligned(folder, folder / 'out')
    names = [f'{ORDERS[name].index(n)}.png' for n in range(7)]
    notes = ' '.join(summary['notes'])
    assert ('they were sorted accordingly' in notes) == (name != 'one way' and breathing > 0)
    assert ('come into focus more than once' in notes) == (name != 'one way' and breathing == 0)
    if breathing:
      assert (summary['frames'], summary['focus']) == (names, list(range(7)))
    else:
      assert summary['frames'] == [f'{k}.png' for k in range(7)]
      assert name == 'one way' or ', '.join(names) in notes or ', '.join(names[::-1]) in notes
    if name != 'one way' and breathing:  # else the order is kept anyway
      kept, _ = aligned(folder, folder / 'kept', far_to_near=True)
      assert kept['frames'] == [f'{k}.png' for k in range(7)]


def test_both_orders_at_once_are_refused():
  with pytest.raises(InputError, match='expected one of the two'):
    Options(near_to_far=True, far_to_near=True)


@pytest.mark.parametrize('are_named', [False, True])
def test_a_frame_of_another_scene_is_named_and_anchors_nothing(canvas, tmp_path, are_named):
  """The last frame, to which all others are aligned otherwise, shows something else. If each was named, it stays."""
  for n in range(4):
    photograph(canvas, tmp_path / f'a_{n}.png', zoom=1 - 0.01 * n, blur_px=0.5 * (n > 0))
  photograph(canvas[::-1], tmp_path / 'a_4.png', blur_px=1.0)
  source = sorted(tmp_path.glob('*.png')) if are_named else tmp_path
  summary, motion = aligned(source, tmp_path / 'out', far_to_near=True)
  start = 'a_4.png could not be compared' if are_named else 'Left out: a_4.png, which shows another scene'
  assert any(note.startswith(start) for note in summary['notes'])
  assert summary['frames'][-1] == ('a_4.png' if are_named else 'a_3.png')
  assert summary['focus'] == list(range(len(summary['frames'])))
  assert summary['residual_motion']['after']['frames_measured'] == 4
  assert summary['residual_motion']['after']['zoom_range'] < 1.002
  assert np.abs(motion['motion'][0]).max() > 0.02


def test_channel_of_a_tiff_by_its_flag(canvas, tmp_path):
  """Two channels, of which the second is the first upside down."""
  frames = [ndimage.gaussian_filter(canvas, sigma)[MARGIN:-MARGIN, MARGIN:-MARGIN] for sigma in (1.5, 0.5)]
  pages = [Image.fromarray(np.round(255 * page).astype(np.uint8)) for frame in frames for page in (frame, frame[::-1])]
  description = 'ImageJ=1.54f\nimages=4\nchannels=2\nslices=2\nhyperstack=true\n'
  pages[0].save(tmp_path / 'z.tif', save_all=True, append_images=pages[1:], tiffinfo={270: description})
  out = tmp_path / 'out'
  flags = [f'--stack={tmp_path / "z.tif"}', f'--out={out}', '--channel=1', '--only_align', '--method=classical']
  done = programs.run('-m', 'focal_jax.main', '--mode=predict', *flags)
  assert done.returncode == 0, done.stderr
  summary = json.loads((out / 'summary.json').read_text())
  assert summary['options']['channel'] == 1
  assert any('Depth is from channel 1' in note for note in summary['notes'])
  nearest = np.asarray(Image.open(out / 'aligned' / f'{Path(summary["frames"][-1]).stem}.png'))[..., 0]
  np.testing.assert_array_equal(nearest, np.asarray(pages[3 if '003' in summary['frames'][-1] else 1]))


def test_names_of_aligned_frames_fit_into_a_file_system(tmp_path):
  (tmp_path / 'aligned').mkdir()
  names = [f'{"ä" * 124}{n}.png' for n in range(3)]  # 253 bytes
  files = aligned_files(tmp_path, names)
  assert len(set(files)) == 3
  for file in files:
    file.write_text('')
