"""Random scenes for the ray tracer Mitsuba: solids, stones, rods, cut-out cards, leaves, reliefs, tables and rooms.

They differ from the scenes of `focal_jax.simulate`, which are layers facing the camera, in what layers cannot show:
curved and steep surfaces, shading and shadows, highlights that move with the viewpoint, objects that occlude
themselves, and the light that passes behind their edges on its way to different parts of the lens.

The camera is at the origin and looks along z; x grows to the left of the image and y upwards. The nearest objects are
about 1 away.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import mitsuba as mi
import numpy as np
import scipy.fft
from jaxtyping import Float, UInt8
from PIL import Image

from focal_jax.simulate.sensor import GAMMA

RATIO = (1.08, 8.0)  # log-uniform: farthest distance relative to the nearest
FIELD_OF_VIEW_DEGREES = (12.0, 60.0)  # log-uniform
# Share of the scenes; `studio` is a few large solids before a plain backdrop.
LAYOUTS = {'wall': 0.28, 'table': 0.22, 'room': 0.14, 'relief': 0.08, 'gaps': 0.12, 'studio': 0.16}
NUM_OBJECTS = {  # end excluded
  'wall': (1, 14),
  'table': (1, 10),
  'room': (0, 8),
  'relief': (0, 3),
  'gaps': (3, 12),
  'studio': (1, 4),
}
SIZE_PX = {'gaps': (10, 60), 'studio': (60, 300)}  # log-uniform: size of the objects ...
ANY_SIZE_PX = (10, 150)  # ... and in other layouts
SHAPES = {  # share of the objects ...
  'gaps': {'stone': 0.05, 'ball': 0.05, 'box': 0.05, 'rod': 0.35, 'card': 0.4, 'panel': 0.05, 'leaves': 0.05},
  'studio': {'stone': 0.55, 'ball': 0.1, 'box': 0.15, 'rod': 0.05, 'card': 0.1, 'leaves': 0.05},
}
# ... and in other layouts
ANY_SHAPES = {'stone': 0.22, 'ball': 0.12, 'box': 0.2, 'rod': 0.12, 'card': 0.18, 'panel': 0.1, 'leaves': 0.06}
TEXTURES = {'photograph': 0.38, 'fractal': 0.26, 'plain': 0.12, 'pattern': 0.1, 'speckle': 0.06, 'patches': 0.08}
MATERIALS = {'diffuse': 0.66, 'plastic': 0.26, 'metal': 0.08}
TEXELS = 256  # side of computed textures
CARD_CELLS = 96  # side of the grid that cards are cut from

Photographs = Sequence[UInt8[np.ndarray, 'h w 3']]
Plugin = Any  # what Mitsuba's `load_dict` takes: a dict, or an object


@dataclasses.dataclass(frozen=True)
class Camera:
  """A pinhole at the origin with square images of `size_px` and a field of view across them."""

  size_px: int
  field_of_view_degrees: float

  @property
  def focal_px(self) -> float:
    return float(self.size_px / 2 / np.tan(np.radians(self.field_of_view_degrees) / 2))

  def length(self, px: float, z: float) -> float:
    """The length at depth z that is seen as `px` pixels."""
    return px * z / self.focal_px

  def point(self, x: float, y: float, z: float) -> Float[np.ndarray, '3']:
    """The point at depth z that is seen x and y half images from the centre."""
    half = self.length(self.size_px / 2, z)
    return np.array([x * half, y * half, z])


def draw_scene(rng: np.random.Generator, size_px: int, photographs: Photographs) -> tuple[Camera, dict[str, Plugin]]:
  """A random camera, and a scene for `mitsuba.load_dict`.

  Args:
    rng: determines both.
    size_px: side of the images.
    photographs: for textures.
  """
  camera = Camera(size_px, log_uniform(rng, *FIELD_OF_VIEW_DEGREES))
  return camera, _Builder(rng, camera, photographs).build()


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
  return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class _Builder:
  """Adds lights and objects to a scene, all drawn from one generator."""

  def __init__(self, rng: np.random.Generator, camera: Camera, photographs: Photographs):
    self._rng, self._camera, self._photographs = rng, camera, photographs
    self._far = log_uniform(rng, *RATIO)
    self._plugins: dict[str, Plugin] = {'type': 'scene'}

  def build(self) -> dict[str, Plugin]:
    rng = self._rng
    self._plugins['integrator'] = {'type': 'path', 'max_depth': int(rng.integers(2, 4))}
    layout = self._choose(LAYOUTS)
    self._add_lights(inside=layout == 'room')
    self._add_backdrop(layout)
    add = {'table': self._add_table, 'room': self._add_room, 'relief': self._add_relief}
    add.get(layout, lambda: None)()
    for index in range(rng.integers(*NUM_OBJECTS[layout])):
      self._add_object(f'object{index}', layout)
    return self._plugins

  def _choose(self, shares: dict[str, float]) -> str:
    return str(self._rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))

  # Lights and layouts.

  def _light(self, strength: float) -> Plugin:
    return _rgb(strength * np.clip(1 + 0.15 * self._rng.normal(size=3), 0.5, 1.5))

  def _add_lights(self, inside: bool) -> None:
    rng = self._rng
    self._plugins['sky'] = {'type': 'constant', 'radiance': self._light(rng.uniform(0.15, 1.0))}
    for index in range(rng.integers(0, 3)):
      direction = rng.normal(size=3)
      direction = [direction[0], -abs(direction[1]), abs(direction[2]) + 0.2]  # from above, and not against the camera
      light = {'type': 'directional', 'direction': direction, 'irradiance': self._light(rng.uniform(0.5, 3))}
      self._plugins[f'sun{index}'] = light
    if inside:  # little of the sky's light gets in
      position = self._camera.point(rng.uniform(-0.3, 0.3), rng.uniform(0, 0.3), rng.uniform(0.3, 1.0))
      light = self._light(rng.uniform(1, 3) * self._far)
      self._plugins['lamp'] = {'type': 'point', 'position': position.tolist(), 'intensity': light}

  def _add_plane(self, name: str, centre: Sequence[float], turn: Any, half: float, texture: str | None = None) -> None:
    """A square that faces the camera before it is turned, with a texture of about a texel a pixel."""
    texture_scale = 2 * half / self._camera.length(TEXELS, centre[2]) * self._rng.choice([0.25, 0.5, 1.0, 1.0, 2.0])
    place = _transform().translate(list(centre)) @ turn @ _facing() @ _transform().scale([half, half, 1])
    self._plugins[name] = {'type': 'rectangle', 'to_world': place, 'bsdf': self._material(texture_scale, texture)}

  def _add_backdrop(self, layout: str) -> None:
    rng, far, camera, tilted = self._rng, self._far, self._camera, layout == 'wall'
    z = far * rng.choice([1.0, 1.3, 4.0], p=[0.6, 0.25, 0.15])
    turn = self._turn(rng.choice([0, 15, 40])) if tilted and far > 1.3 else _transform()
    texture = 'plain' if layout == 'studio' else None
    self._add_plane('backdrop', [0, 0, z], turn, 3 * camera.length(camera.size_px, z), texture)
    if tilted and rng.random() < 0.6:
      turn = _transform().rotate([1, 0, 0], rng.uniform(-70, 70)).rotate([0, 1, 0], rng.uniform(-50, 50))
      self._add_plane('slope', [0, 0, far], turn, camera.length(camera.size_px, far))

  def _add_table(self) -> None:
    rng, camera, far = self._rng, self._camera, self._far
    front, back = camera.point(0, -rng.uniform(0.25, 0.9), 0.9), camera.point(0, rng.uniform(-0.1, 0.6), far)
    along = back - front
    slope = np.degrees(np.arctan2(along[1], along[2]))
    half = max(np.linalg.norm(along), camera.length(camera.size_px, far))
    self._add_plane('table', (front + back) / 2, _transform().rotate([1, 0, 0], 90 - slope), half)

  def _add_room(self) -> None:
    rng, far = self._rng, self._far
    height, width = self._camera.length(self._camera.size_px, 1.0) * rng.uniform(0.35, 0.5, 2)
    sides = {
      'floor': ([0, -height, far], [1, 0, 0], 90),
      'ceiling': ([0, height, far], [1, 0, 0], -90),
      'left': ([-width, 0, far], [0, 1, 0], 90),
      'right': ([width, 0, far], [0, 1, 0], -90),
    }
    for name, (centre, axis, degrees) in sides.items():
      if rng.random() < 0.8:
        self._add_plane(name, centre, _transform().rotate(axis, degrees), 2 * far)

  def _add_relief(self) -> None:
    """A landscape over the whole image, smooth or in terraces."""
    rng, far, camera, n = self._rng, self._far, self._camera, 90
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    height = rng.uniform(0.1, 0.35) * fractal(rng, n, rng.uniform(2, 3.2), rng.uniform(1, 4))
    height += 0.32 * (rng.normal() * x + rng.normal() * y)
    if rng.random() < 0.25:
      height = np.round(2.5 * height) / 2.5
    z = 1 / (1 / far + np.clip(0.5 + height, 0, 1) * (1 - 1 / far))
    half = 1.25 * camera.length(camera.size_px / 2, z)
    vertices = np.stack([x * half, y * half, z], -1).reshape(-1, 3)
    uv = rng.choice([0.5, 1, 2]) * np.stack([x, y], -1).reshape(-1, 2)
    self._plugins['relief'] = _mesh('relief', vertices, _grid_faces(n, n), uv, self._material(1.0))

  # Objects.

  def _turn(self, most_degrees: float = 180.0) -> Any:
    axis = self._rng.normal(size=3)
    return _transform().rotate((axis / np.linalg.norm(axis)).tolist(), self._rng.uniform(-most_degrees, most_degrees))

  def _add_object(self, name: str, layout: str) -> None:
    rng, camera = self._rng, self._camera
    z = 1 / rng.uniform(1 / self._far, 1.0)
    size_px = log_uniform(rng, *SIZE_PX.get(layout, ANY_SIZE_PX))
    radius = min(camera.length(size_px / 2, z), 0.8 * (z - 0.7))  # stays in front of the camera
    centre = camera.point(*rng.uniform(-0.9, 0.9, 2), z)
    texture_scale = max(size_px / TEXELS, 0.1) * rng.choice([0.5, 1, 2])
    shape = self._choose(SHAPES.get(layout, ANY_SHAPES))
    make = {'stone': self._stone, 'card': self._card, 'leaves': self._leaves, 'rod': self._rod}
    if shape in make:
      self._plugins[name] = make[shape](name, centre, radius, texture_scale)
      return
    material = self._material(texture_scale)
    if shape == 'ball':
      self._plugins[name] = {'type': 'sphere', 'center': centre.tolist(), 'radius': radius, 'bsdf': material}
      return
    place = _transform().translate(centre.tolist())
    if shape == 'box':
      place = place @ self._turn() @ _transform().scale((radius * rng.uniform(0.3, 1, 3)).tolist())
    else:
      place = place @ self._turn(rng.choice([0, 30, 180])) @ _facing()
      place = place @ _transform().scale([radius, radius * rng.uniform(0.4, 1), 1])
    kind = 'cube' if shape == 'box' else 'rectangle'
    self._plugins[name] = {'type': kind, 'to_world': place, 'bsdf': material}

  def _stone(self, name: str, centre: np.ndarray, radius: float, texture_scale: float) -> Plugin:
    """An ellipsoid, smooth or rough; one in four is turned on a lathe."""
    rng, rows, columns = self._rng, 96, 160
    from_pole_to_pole, around = np.linspace(1e-3, np.pi - 1e-3, rows), np.linspace(0, 2 * np.pi, columns)
    polar, azimuth = np.meshgrid(from_pole_to_pole, around, indexing='ij')
    rough = fractal(rng, columns, rng.uniform(1, 2.5), rng.uniform(1, 6))[:rows]
    distance = 1 + rng.choice([0, 0.03, 0.1, 0.25]) * rough * np.sin(polar)
    distance[:, -1] = distance[:, 0]  # closes the seam
    if rng.random() < 0.25:
      distance *= 1 + 0.3 * np.sin(polar * rng.integers(2, 8))
    across = np.sin(polar)
    vertices = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), np.cos(polar)], -1) * distance[..., None]
    vertices = vertices.reshape(-1, 3) * rng.uniform(0.5, 1.2, 3) * radius
    vertices = vertices @ np.array(self._turn().matrix)[:3, :3].T + centre
    uv = np.stack([azimuth / (2 * np.pi), polar / np.pi], -1).reshape(-1, 2)
    return _mesh(name, vertices, _grid_faces(rows, columns), uv, self._material(2 * texture_scale))

  def _rod(self, name: str, centre: np.ndarray, radius: float, texture_scale: float) -> Plugin:
    rng, z = self._rng, centre[2]
    half = rng.normal(size=3) * [1, 1, 0.3] * self._camera.length(150, z)
    ends = [np.append(end[:2], max(end[2], 0.75)).tolist() for end in (centre - half, centre + half)]
    radius = self._camera.length(log_uniform(rng, 1.5, 14) / 2, z)
    return {'type': 'cylinder', 'p0': ends[0], 'p1': ends[1], 'radius': radius, 'bsdf': self._material(1.0)}

  def _card(self, name: str, centre: np.ndarray, radius: float, texture_scale: float) -> Plugin:
    """A flat cut-out: a flower, a comb, a ring, a lattice, or torn paper."""
    rng = self._rng
    inside = cut_out(rng, CARD_CELLS)
    corner = np.linspace(-1, 1, CARD_CELLS + 1)
    x, y = np.meshgrid(corner, corner)
    vertices = np.stack([x, y * rng.uniform(0.4, 1), np.zeros_like(x)], -1).reshape(-1, 3) * radius
    vertices = vertices @ np.array(self._turn(rng.choice([0, 30, 180])).matrix)[:3, :3].T + centre
    faces = _grid_faces(*x.shape).reshape(2, CARD_CELLS, CARD_CELLS, 3)[:, inside].reshape(-1, 3)
    uv = np.stack([x + 1, y + 1], -1).reshape(-1, 2) / 2
    return _mesh(name, vertices, faces, uv, self._material(texture_scale))

  def _leaves(self, name: str, centre: np.ndarray, radius: float, texture_scale: float) -> Plugin:
    rng, n = self._rng, self._rng.integers(20, 150)
    place = centre + rng.normal(size=(n, 3)) * radius / 2
    place[:, 2] = np.maximum(place[:, 2], 0.75)
    along = rng.normal(size=(n, 3))
    across = np.cross(along, rng.normal(size=(n, 3)))
    length = self._camera.length(log_uniform(rng, 3, 20) / 2, centre[2])
    along *= length / np.linalg.norm(along, axis=1, keepdims=True)
    across *= length * rng.uniform(0.2, 1) / np.linalg.norm(across, axis=1, keepdims=True)
    vertices = np.stack([place - along, place + across, place + along, place - across], 1).reshape(-1, 3)
    faces = (4 * np.arange(n)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    uv = (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) + rng.random((n, 1, 2))).reshape(-1, 2)
    return _mesh(name, vertices, faces, uv, self._material(1.0))

  # Materials.

  def _material(self, texture_scale: float, texture: str | None = None) -> Plugin:
    """A material seen from both sides.

    Args:
      texture_scale: how often its texture is repeated from 0 to 1 of the surface's coordinates.
      texture: one of `TEXTURES`; None: any.
    """
    rng = self._rng
    texture = draw_texture(rng, texture or self._choose(TEXTURES), self._photographs)
    if texture.ndim == 1:
      reflectance = _rgb(texture)
    else:
      reflectance = {
        'type': 'bitmap',
        'bitmap': mi.Bitmap(texture),
        'raw': True,  # linear light
        'wrap_mode': 'mirror',
        'to_uv': _transform().scale([texture_scale, texture_scale, 1]).translate([rng.random(), rng.random(), 0]),
      }
    kind = self._choose(MATERIALS)
    if kind == 'diffuse':
      material = {'type': 'diffuse', 'reflectance': reflectance}
    elif kind == 'plastic':
      material = {'type': 'roughplastic', 'diffuse_reflectance': reflectance, 'alpha': log_uniform(rng, 0.05, 0.5)}
    else:
      material = {'type': 'roughconductor', 'specular_reflectance': reflectance, 'alpha': log_uniform(rng, 0.15, 0.6)}
    return {'type': 'twosided', 'bsdf': material}


def draw_texture(rng: np.random.Generator, kind: str, photographs: Photographs) -> np.ndarray:
  """Reflectance 0.01 .. 1 in linear light: [n, n, 3] float32, or [3] if plain.

  Args:
    rng: determines it.
    kind: one of `TEXTURES`.
    photographs: to cut a texture from.
  """
  base, contrast = _colour(rng), log_uniform(rng, 0.03, 0.8)
  if kind == 'plain':
    return base
  if kind in ('photograph', 'patches'):
    texture = _cut_from(rng, photographs[rng.integers(len(photographs))])
    detail = (texture - texture.mean()) * rng.choice([1, 1, rng.uniform(0.1, 1)])
    texture = (texture.mean() + detail) * rng.uniform(0.6, 1.3)
    if kind == 'patches':  # texture in places only
      texture = np.where(fractal(rng, len(texture), 2.0, 2.0)[..., None] > rng.normal(), texture, base)
  elif kind == 'fractal':
    beta, cells = rng.uniform(0.6, 2.6), log_uniform(rng, 1, 25)
    detail = np.stack([fractal(rng, TEXELS, beta, cells) for _ in range(3)], -1)
    detail = detail[..., :1] + rng.choice([0.05, 0.3, 1.0]) * (detail - detail[..., :1])  # mostly grey
    if rng.random() < 0.25:
      detail = np.tanh(rng.uniform(1, 8) * detail)
    texture = base * (1 + contrast * detail)
  elif kind == 'speckle':
    texture = np.where(rng.random((TEXELS, TEXELS, 1)) < log_uniform(rng, 0.001, 0.2), _colour(rng), base)
  else:
    y, x = np.mgrid[:TEXELS, :TEXELS] / TEXELS
    angle, frequency = rng.uniform(0, 2 * np.pi), rng.integers(1, 40)
    u = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
    v = 2 * np.pi * frequency * (y * np.cos(angle) - x * np.sin(angle))
    stripes, checks = np.sin(u) > 0, (np.sin(u) > 0) ^ (np.sin(v) > 0)
    dots, waves = np.cos(u) + np.cos(v) > rng.uniform(0, 1.5), 0.5 + 0.5 * np.sin(u)
    chosen = (stripes, checks, dots, waves)[rng.integers(4)].astype(float)
    texture = base + (_colour(rng) - base) * chosen[..., None]
  return np.ascontiguousarray(np.clip(texture, 0.01, 1), np.float32)


def _cut_from(rng: np.random.Generator, photograph: UInt8[np.ndarray, 'h w 3']) -> np.ndarray:
  """A random square of a photograph, reduced to at most 512 px, in linear light."""
  side = int(min(*photograph.shape[:2], log_uniform(rng, 160, 800)))
  top, left = (rng.integers(size - side + 1) for size in photograph.shape[:2])
  cut = Image.fromarray(photograph[top : top + side, left : left + side])
  if side > 512:
    cut = cut.resize((512, 512), Image.Resampling.LANCZOS)
  return (np.asarray(cut, np.float32) / 255) ** GAMMA


def _colour(rng: np.random.Generator) -> Float[np.ndarray, '3']:
  return np.clip(rng.uniform(0.05, 0.9) + rng.normal(size=3) * rng.choice([0.02, 0.1, 0.25]), 0.02, 0.95)


def fractal(rng: np.random.Generator, size: int, beta: float, cells: float) -> Float[np.ndarray, '{size} {size}']:
  """Noise of mean 0 and standard deviation 1 whose amplitude falls with frequency^-beta; it repeats at the borders.

  Args:
    rng: determines it.
    size: side of the square.
    beta: slope of the amplitude.
    cells: periods across the square below which the amplitude is constant.
  """
  frequency = size * np.hypot(scipy.fft.fftfreq(size)[:, None], scipy.fft.rfftfreq(size))
  amplitude = np.maximum(frequency, cells) ** -beta
  amplitude[0, 0] = 0
  spectrum = amplitude * (rng.normal(size=amplitude.shape) + 1j * rng.normal(size=amplitude.shape))
  noise = scipy.fft.irfft2(spectrum, (size, size))
  return noise / noise.std()


def cut_out(rng: np.random.Generator, size: int) -> np.ndarray:
  """Which cells of a square are inside a random flat shape, [size, size] bool."""
  y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
  distance = np.hypot(x, y)

  def bars(along):
    return np.abs((along * rng.integers(2, 12)) % 2 - 1) < rng.uniform(0.1, 0.5)

  shapes = (
    lambda: distance < 0.55 + 0.4 * np.abs(np.cos(rng.integers(2, 9) * np.arctan2(y, x) / 2)) ** rng.uniform(0.5, 2),
    lambda: bars(x) | (y > 0.7),
    lambda: (distance < 0.95) & (distance > rng.uniform(0.3, 0.85)),
    lambda: bars(x) | bars(y),
    lambda: fractal(rng, size, rng.uniform(1.2, 2.5), rng.uniform(1, 5)) > 0.7 * rng.normal(),
  )
  return shapes[rng.integers(len(shapes))]()


# Mitsuba.


def _transform() -> Any:
  return mi.ScalarTransform4f()  # not a constant, because the variant is selected after the import


def _facing() -> Any:
  """Mitsuba's rectangle looks along z; this turns it to the camera."""
  return _transform().rotate([0, 1, 0], 180)


def _rgb(value: np.ndarray) -> Plugin:
  return {'type': 'rgb', 'value': value.tolist()}


def _grid_faces(rows: int, columns: int) -> np.ndarray:
  """The triangles of a grid of vertices: first one half of each cell in turn, then the other."""
  index = np.arange(rows * columns).reshape(rows, columns)
  a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
  return np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in ((a, c, b), (b, c, d))])


def _mesh(name: str, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, material: Plugin) -> Plugin:
  properties = mi.Properties()
  properties['mesh_bsdf'] = mi.load_dict(material)
  mesh = mi.Mesh(name, len(vertices), len(faces), has_vertex_texcoords=True, props=properties)
  values = mi.traverse(mesh)
  values['vertex_positions'] = np.ascontiguousarray(vertices, np.float32).ravel()
  values['faces'] = np.ascontiguousarray(faces, np.uint32).ravel()
  values['vertex_texcoords'] = np.ascontiguousarray(uv, np.float32).ravel()
  values.update()
  return mesh
