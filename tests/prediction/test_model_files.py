"""PLY and glTF files, read by small readers of their own."""

import json
import struct

import numpy as np
import pytest

from focal_jax.prediction.model_files import write_glb, write_ply
from focal_jax.prediction.surface import Geometry

TYPES = {'float': 'f', 'uchar': 'B', 'int': 'i'}


def geometry(points=7, triangles=5, unit='m'):
  rng = np.random.default_rng(0)
  return Geometry(
    rng.normal(size=(points, 3)).astype(np.float32),
    rng.integers(0, 256, (points, 3), np.uint8),
    rng.integers(0, max(points, 1), (triangles, 3), np.int32),
    unit,
    1,
  )


def read_ply(path):
  """{element: [{property: value}]} of a binary little-endian file, value by value."""
  data = path.read_bytes()
  end = data.index(b'end_header\n') + len(b'end_header\n')
  lines = data[:end].decode('ascii').splitlines()
  assert lines[:2] == ['ply', 'format binary_little_endian 1.0']
  elements, place = [], end
  for line in lines[2:-1]:
    word, *rest = line.split()
    if word == 'element':
      elements.append((rest[0], int(rest[1]), []))
    elif word == 'property':
      elements[-1][2].append(rest)
    else:
      assert word == 'comment'

  def value(kind):
    nonlocal place
    (number,) = struct.unpack_from('<' + TYPES[kind], data, place)
    place += struct.calcsize('<' + TYPES[kind])
    return number

  found = {}
  for name, count, properties in elements:
    found[name] = []
    for _ in range(count):
      row = {}
      for *kind, label in properties:
        row[label] = [value(kind[2]) for _ in range(value(kind[1]))] if kind[0] == 'list' else value(kind[0])
      found[name].append(row)
  assert place == len(data)
  return found


@pytest.mark.parametrize(('points', 'triangles'), [(7, 5), (7, 0), (0, 0)])
def test_ply(tmp_path, points, triangles):
  given = geometry(points, triangles)
  write_ply(tmp_path / 'a.ply', given)
  found = read_ply(tmp_path / 'a.ply')
  assert set(found) == ({'vertex', 'face'} if triangles else {'vertex'})
  assert len(found['vertex']) == points
  for row, point, colour in zip(found['vertex'], given.points, given.colours, strict=True):
    assert [row[name] for name in ('x', 'y', 'z')] == point.tolist()
    assert [row[name] for name in ('red', 'green', 'blue')] == colour.tolist()
  assert [row['vertex_indices'] for row in found.get('face', [])] == given.triangles.tolist()


def test_ply_header_stays_a_header(tmp_path):
  write_ply(tmp_path / 'a.ply', geometry(unit='Ångström'))
  assert len(read_ply(tmp_path / 'a.ply')['vertex']) == 7


def read_glb(path):
  """The JSON and the binary chunk, after the rules of the container (glTF 2.0, section 4.4)."""
  data = path.read_bytes()
  magic, version, length = struct.unpack_from('<III', data)
  assert (magic, version, length) == (0x46546C67, 2, len(data))
  chunks, place = [], 12
  while place < len(data):
    size, kind = struct.unpack_from('<II', data, place)
    assert size % 4 == 0
    chunks.append((kind, data[place + 8 : place + 8 + size]))
    place += 8 + size
  assert place == len(data)
  assert [kind for kind, _ in chunks] == [0x4E4F534A, 0x004E4942][: len(chunks)]
  return json.loads(chunks[0][1]), chunks[1][1] if len(chunks) > 1 else b''


COMPONENTS = {5121: np.dtype('u1'), 5123: np.dtype('<u2'), 5125: np.dtype('<u4'), 5126: np.dtype('<f4')}
WIDTHS = {'SCALAR': 1, 'VEC3': 3, 'VEC4': 4}


def accessor(root, binary, index):
  """Its values, after the rules of alignment and range (section 3.6.2)."""
  entry = root['accessors'][index]
  view = root['bufferViews'][entry['bufferView']]
  component, width = COMPONENTS[entry['componentType']], WIDTHS[entry['type']]
  size = component.itemsize * width
  assert 'byteStride' not in view  # tightly packed
  assert view['target'] in (34962, 34963)
  if view['target'] == 34962:
    assert size % 4 == 0  # of every attribute of a vertex
  assert (view['byteOffset'] + entry.get('byteOffset', 0)) % component.itemsize == 0
  assert view['byteLength'] == entry['count'] * size
  assert view['byteOffset'] + view['byteLength'] <= root['buffers'][view['buffer']]['byteLength'] <= len(binary)
  values = np.frombuffer(binary, component, entry['count'] * width, view['byteOffset']).reshape(entry['count'], width)
  for name, least in (('min', values.min(0)), ('max', values.max(0))):
    if name in entry:
      np.testing.assert_array_equal(np.float32(entry[name]), least)
  return values, entry


@pytest.mark.parametrize('points', [7, 8])
def test_glb(tmp_path, points):
  given = geometry(points)
  write_glb(tmp_path / 'a.glb', given)
  root, binary = read_glb(tmp_path / 'a.glb')
  assert root['asset']['version'] == '2.0'
  assert root['asset']['extras'] == {'unit': 'm'}
  node = root['nodes'][root['scenes'][root['scene']]['nodes'][0]]
  (primitive,) = root['meshes'][node['mesh']]['primitives']
  assert primitive.get('mode', 4) == 4  # triangles
  assert not {'rotation', 'matrix', 'scale', 'translation'} & set(node)  # axes are those of the points
  positions, entry = accessor(root, binary, primitive['attributes']['POSITION'])
  assert (entry['componentType'], entry['type']) == (5126, 'VEC3')
  assert {'min', 'max'} <= set(entry)
  np.testing.assert_array_equal(positions, given.points)
  indices, entry = accessor(root, binary, primitive['indices'])
  assert (entry['componentType'], entry['type']) == (5125, 'SCALAR')
  np.testing.assert_array_equal(indices.reshape(-1, 3), given.triangles)
  colours, entry = accessor(root, binary, primitive['attributes']['COLOR_0'])
  assert (entry['componentType'], entry['type'], entry['normalized']) == (5123, 'VEC4', True)
  assert (colours[:, 3] == 65535).all()
  linear = colours[:, :3] / 65535
  encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
  np.testing.assert_allclose(255 * encoded, given.colours, atol=0.1)
  material = root['materials'][primitive['material']]
  assert set(material['extensions']) <= set(root['extensionsUsed'])


def test_glb_without_triangles_is_an_empty_scene(tmp_path):
  write_glb(tmp_path / 'a.glb', geometry(triangles=0))
  root, binary = read_glb(tmp_path / 'a.glb')
  assert set(root) == {'asset'}
  assert binary == b''


def test_opens_elsewhere(tmp_path):
  trimesh = pytest.importorskip('trimesh', reason='trimesh, a reader of both formats, is not installed')
  given = geometry()
  write_ply(tmp_path / 'a.ply', given)
  write_glb(tmp_path / 'a.glb', given)
  (from_glb,) = trimesh.load(tmp_path / 'a.glb', process=False).geometry.values()
  for found in (trimesh.load(tmp_path / 'a.ply', process=False), from_glb):
    np.testing.assert_array_equal(found.vertices, given.points)
    np.testing.assert_array_equal(found.faces, given.triangles)
