"""Points and triangles against the geometry of planes."""

import itertools

import numpy as np
import pytest

from focal_jax import InputError
from focal_jax.prediction import surface as surfaces
from focal_jax.prediction.surface import RELIEF_UNIT, camera_of, extension, make_surface, mesh, point_cloud

HEIGHT, WIDTH = 30, 40
FOCUS = np.array([0.2, 1.0, 2.0])  # dioptres, far to near
CAMERA = camera_of(HEIGHT, WIDTH, 50.0, (17.0, 12.5))
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
CERTAIN = np.ones((HEIGHT, WIDTH), np.float32)


def rays():
  """Where the pixels lie at distance 1."""
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  return np.stack([(x - 17.0) / 50, -(y - 12.5) / 50, -np.ones((HEIGHT, WIDTH))], -1)


def make(depth, unit='1/m', focus=FOCUS, camera=CAMERA, confidence=CERTAIN, **options):
  return make_surface(depth.astype(np.float32), confidence, COLOURS, focus, unit, camera, **options)


def plane():
  """1 / distance of the plane where normal . point = 1, which is linear in the pixel; and the normal."""
  normal = np.array([0.3, -0.2, -0.9])
  return rays() @ normal, normal


def test_points_of_a_slanted_plane():
  inverse, normal = plane()
  points = make(inverse).points
  np.testing.assert_allclose(points @ normal, 1, rtol=1e-5)
  np.testing.assert_allclose(points / -points[..., 2:], rays(), atol=1e-6)  # seen where their pixels are
  assert points[0, 0, 0] < points[0, -1, 0]  # x right
  assert points[0, 0, 1] > points[-1, 0, 1]  # y up
  assert (points[..., 2] < 0).all()


def test_units():
  inverse, _ = plane()
  metres = make(inverse)
  np.testing.assert_allclose(make(1 / inverse, 'm', 1 / FOCUS).points, metres.points, rtol=1e-5)
  own = make(inverse, '1 / unit of focus_distance.txt')
  np.testing.assert_array_equal(own.points, metres.points)
  assert (metres.unit, own.unit) == ('m', 'unit of focus_distance.txt')


@pytest.mark.parametrize('focus', [np.arange(5.0), np.arange(5.0)[::-1]])
def test_frame_index_is_a_relief(focus):
  """The nearest frame, the last one, at 1 and the farthest at 1.5, whichever way they are counted."""
  depth = np.broadcast_to(np.linspace(focus[0], focus[-1], WIDTH), (HEIGHT, WIDTH))
  relief = make(depth, 'frame index', focus, farthest=0.1)
  np.testing.assert_allclose(-relief.points[..., 2], np.broadcast_to(np.linspace(1.5, 1, WIDTH), (HEIGHT, WIDTH)), 1e-6)
  assert (relief.unit, relief.farthest, relief.too_far) == (RELIEF_UNIT, None, 0)


def test_frames_of_one_focus_make_a_flat_relief():
  assert np.isfinite(make(np.full((HEIGHT, WIDTH), 3.0), 'frame index', np.full(4, 3.0)).points).all()


def test_what_is_left_out_is_counted():
  depth, confidence = np.full((HEIGHT, WIDTH), 1.0), CERTAIN.copy()
  depth[0, :6] = 0.04, 0.02, 0.0, -1.0, np.nan, 0.026  # the limit is 20 times 0.5 m
  confidence[1, :3] = 0.2
  confidence[0, 0] = 0.2
  found = make(depth, confidence=confidence, min_confidence=0.3)
  assert (found.low_confidence, found.too_far, found.farthest) == (4, 5, 10.0)
  expected = np.ones((HEIGHT, WIDTH), bool)
  expected[0, :6] = expected[1, :3] = False
  np.testing.assert_array_equal(np.isfinite(found.points).all(-1), expected)
  assert make(depth, farthest=100.0).too_far == 3
  nothing = make(depth, farthest=0.9)
  assert nothing.too_far == HEIGHT * WIDTH
  assert len(point_cloud(nothing).points) == len(mesh(nothing).points) == len(mesh(nothing).triangles) == 0


@pytest.mark.parametrize('size', [(300, 400), (400, 300)])
def test_assumed_camera_sees_sixty_degrees(size):
  camera = camera_of(*size)
  assert camera.assumed
  assert camera.principal_point_px == ((size[1] - 1) / 2, (size[0] - 1) / 2)
  assert 2 * np.degrees(np.arctan(max(size) / 2 / camera.focal_length_px)) == pytest.approx(60)
  assert not CAMERA.assumed


@pytest.mark.parametrize('length', [0.0, -3.0, np.nan, np.inf])
def test_refuses_impossible_focal_lengths(length):
  with pytest.raises(InputError, match='focal_length_px is'):
    camera_of(3, 4, length)


def test_refuses_thresholds_out_of_range():
  for options in ({'min_confidence': -0.1}, {'min_confidence': np.nan}, {'farthest': 0.0}, {'farthest': np.nan}):
    with pytest.raises(InputError, match=next(iter(options))):
      make(plane()[0], **options)
  for call in (point_cloud, mesh):
    with pytest.raises(InputError, match='max_points is 0'):
      call(make(plane()[0]), 0)
  with pytest.raises(InputError, match='jump is nan'):
    mesh(make(plane()[0]), jump=np.nan)


@pytest.mark.parametrize(('budget', 'stride'), [(1200, 1), (1199, 2), (300, 2), (140, 3), (1, 40)])
def test_thinned_out_to_a_budget(budget, stride):
  cloud = point_cloud(make(plane()[0]), budget)
  assert cloud.stride == stride
  assert len(cloud.points) <= budget
  np.testing.assert_array_equal(cloud.points, make(plane()[0]).points[::stride, ::stride].reshape(-1, 3))
  np.testing.assert_array_equal(cloud.colours, COLOURS[::stride, ::stride].reshape(-1, 3))


def projected_areas(geometry):
  """Of each triangle, in square pixels, positive if it is counter-clockwise as seen with y up."""
  seen = geometry.points[:, :2] / -geometry.points[:, 2:] * 50
  a, b, c = (seen[geometry.triangles[:, k]] for k in range(3))
  return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


@pytest.mark.parametrize('stride', [1, 3])
def test_mesh_covers_the_picture_once(stride):
  surface = make(plane()[0])
  found = mesh(surface, max_points=HEIGHT * WIDTH // stride**2 + 50, jump=1.0)
  assert found.stride == stride
  rows, columns = (len(range(0, n, stride)) for n in (HEIGHT, WIDTH))
  assert found.triangles.shape == (2 * (rows - 1) * (columns - 1), 3)
  np.testing.assert_allclose(projected_areas(found), stride**2 / 2, rtol=1e-3)  # all of them turned to the camera


def test_mesh_is_cut_at_a_jump():
  inverse = np.full((HEIGHT, WIDTH), 0.5)
  inverse[:, WIDTH // 2 :] = 1.0
  found = mesh(make(inverse))
  assert len(found.triangles) == 2 * (HEIGHT - 1) * (WIDTH - 2)
  distance = -found.points[found.triangles][..., 2]
  np.testing.assert_array_equal(distance.max(1), distance.min(1))
  assert len(mesh(make(inverse), jump=1.01).triangles) == 2 * (HEIGHT - 1) * (WIDTH - 1)


def test_mesh_has_no_triangle_at_a_hole_and_no_point_without_a_triangle():
  depth = plane()[0]
  depth[10, 20] = np.nan
  depth[0, 2] = depth[1, 0] = depth[1, 1] = depth[2, 2] = depth[2, 1] = np.nan  # leaves (0, 0) alone
  surface = make(depth)
  found = mesh(surface, jump=1.0)
  assert np.isfinite(found.points).all()
  np.testing.assert_array_equal(np.unique(found.triangles), np.arange(len(found.points)))
  # Brute force: pixels as corners, in the triangles that have all three.
  known = np.isfinite(depth)
  expected = set()
  for i, j in itertools.product(range(HEIGHT - 1), range(WIDTH - 1)):
    for three in ([(i, j), (i + 1, j), (i, j + 1)], [(i, j + 1), (i + 1, j), (i + 1, j + 1)]):
      if all(known[pixel] for pixel in three):
        expected.add(frozenset(three))
  pixel_of = {tuple(point): divmod(k, WIDTH) for k, point in enumerate(surface.points.reshape(-1, 3))}
  triangles = [frozenset(pixel_of[tuple(found.points[k])] for k in three) for three in found.triangles]
  assert set(triangles) == expected
  assert len(triangles) == len(expected)
  for point, colour in zip(found.points[::97], found.colours[::97], strict=True):
    np.testing.assert_array_equal(colour, COLOURS[pixel_of[tuple(point)]])


def test_what_is_called_a_length():
  assert [surfaces.length_unit(unit) for unit in ('m', '1/m', '1 / mm', 'frame index', 'px')] == [
    *('m', 'm', 'mm'),
    *(RELIEF_UNIT, RELIEF_UNIT),
  ]


@pytest.mark.parametrize(('unit', 'focus'), [('1/m', np.array([0.0, 10.0])), ('m', np.array([np.inf, 0.1]))])
def test_the_pinhole_is_as_far_from_the_image_as_the_thin_lens(unit, focus):
  """A lens of 4.4 mm focused at 0.1 m: 1 / v = 1 / f - 1 / s."""
  image_distance_mm = 1 / (1 / 4.4 - 1 / 100)
  camera = camera_of(HEIGHT, WIDTH, 440.0, None, extension(4.4e-3, focus, unit))
  assert camera.focal_length_px == pytest.approx(100 * image_distance_mm)
  assert camera.focal_length_px > 440 * 1.045


@pytest.mark.parametrize(
  ('focal_length', 'focus', 'unit'),
  [
    (None, FOCUS, '1/m'),  # not known
    (0.005, np.array([0.0, 1.0]), 'frame index'),  # no distances
    (0.6, FOCUS, '1/m'),  # longer than the distance
    (0.005, np.array([0.0, 0.0]), '1/m'),  # all at infinity
  ],
)
def test_the_focal_length_stays_where_the_image_distance_is_not_known(focal_length, focus, unit):
  assert extension(focal_length, focus, unit) == 1


def test_an_assumed_field_of_view_has_no_extension():
  assert camera_of(HEIGHT, WIDTH, None, None, 1.2) == camera_of(HEIGHT, WIDTH)
