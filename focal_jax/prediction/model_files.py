"""Writes point clouds and meshes: PLY, and glTF 2.0 in its binary form (.glb)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

import focal_jax
from focal_jax.prediction.surface import Geometry

# glTF 2.0 specification, sections 3.6.2 and 4.4.
_MAGIC, _VERSION, _JSON_CHUNK, _BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_UNSIGNED_SHORT, _UNSIGNED_INT, _FLOAT = 5123, 5125, 5126
_VERTICES, _INDICES = 34962, 34963


def write_ply(path: Path, geometry: Geometry) -> None:
  """Writes points with colours, and triangles if there are any, as little-endian binary PLY."""
  vertices = np.empty(
    len(geometry.points),
    [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('red', 'u1'), ('green', 'u1'), ('blue', 'u1')],
  )
  for name, values in zip(vertices.dtype.names, (*geometry.points.T, *geometry.colours.T), strict=True):
    vertices[name] = values
  header = [
    'ply',
    'format binary_little_endian 1.0',
    f'comment x right, y up, camera at 0 looking along -z; unit: {geometry.unit}',
    f'element vertex {len(vertices)}',
    *(f'property float {name}' for name in 'xyz'),
    *(f'property uchar {name}' for name in ('red', 'green', 'blue')),
  ]
  faces = np.empty(len(geometry.triangles), [('count', 'u1'), ('corners', '<i4', 3)])
  if len(faces):
    faces['count'], faces['corners'] = 3, geometry.triangles
    header += [f'element face {len(faces)}', 'property list uchar int vertex_indices']
  header.append('end_header\n')
  with path.open('wb') as file:
    file.write('\n'.join(header).encode('ascii', 'replace'))
    file.write(vertices.tobytes())
    file.write(faces.tobytes())


def write_glb(path: Path, geometry: Geometry) -> None:
  """Writes a mesh as binary glTF with vertex colours; without triangles, an empty scene.

  The material is unlit (KHR_materials_unlit), because the light is already in the photographs; viewers without this
  extension show a rough surface. The unit of glTF is the metre; with another unit, which `asset.extras` names, the size
  is meaningless.
  """
  root: dict[str, Any] = {
    'asset': {
      'version': '2.0',
      'generator': f'focal_jax {focal_jax.__version__}',
      'extras': {'unit': geometry.unit},
    }
  }
  binary = b''
  if len(geometry.triangles):
    points = geometry.points.astype('<f4')
    # Four channels, because vertex attributes must start at multiples of four bytes.
    colours = np.full((len(points), 4), 65535, '<u2')
    colours[:, :3] = _linear(geometry.colours)
    blocks = (
      (points, _FLOAT, 'VEC3', _VERTICES, {'min': points.min(0).tolist(), 'max': points.max(0).tolist()}),
      (colours, _UNSIGNED_SHORT, 'VEC4', _VERTICES, {'normalized': True}),
      (geometry.triangles.astype('<u4').reshape(-1), _UNSIGNED_INT, 'SCALAR', _INDICES, {}),
    )
    views, accessors = [], []
    for index, (values, component, kind, target, more) in enumerate(blocks):
      views.append({'buffer': 0, 'byteOffset': len(binary), 'byteLength': values.nbytes, 'target': target})
      accessors.append({'bufferView': index, 'componentType': component, 'count': len(values), 'type': kind, **more})
      binary += values.tobytes()  # all lengths are multiples of four bytes
    material = {
      'pbrMetallicRoughness': {'metallicFactor': 0.0, 'roughnessFactor': 1.0},
      'doubleSided': True,
      'extensions': {'KHR_materials_unlit': {}},
    }
    primitive = {'attributes': {'POSITION': 0, 'COLOR_0': 1}, 'indices': 2, 'material': 0}
    root |= {
      'extensionsUsed': ['KHR_materials_unlit'],
      'scene': 0,
      'scenes': [{'nodes': [0]}],
      'nodes': [{'mesh': 0, 'name': 'surface'}],
      'meshes': [{'primitives': [primitive]}],
      'materials': [material],
      'accessors': accessors,
      'bufferViews': views,
      'buffers': [{'byteLength': len(binary)}],
    }
  text = json.dumps(root, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 4)
  chunks = np.array([len(text), _JSON_CHUNK], '<u4').tobytes() + text
  if binary:
    chunks += np.array([len(binary), _BINARY_CHUNK], '<u4').tobytes() + binary
  path.write_bytes(np.array([_MAGIC, _VERSION, 12 + len(chunks)], '<u4').tobytes() + chunks)


def _linear(colours: UInt8[np.ndarray, 'V 3']) -> Float32[np.ndarray, 'V 3']:
  """sRGB to linear light, 0 .. 65535 (IEC 61966-2-1), the encoding of vertex colours in glTF."""
  encoded = np.arange(256) / 255
  table = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
  return np.round(65535 * table).astype(np.float32)[colours]
