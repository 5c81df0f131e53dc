"""TIFF files packed byte by byte, following TIFF 6.0, its supplements and BigTIFF."""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

SAMPLE_FORMATS = {'u': 1, 'i': 2, 'f': 3}


def write_tiff(
  path: Path,
  pixels: np.ndarray,
  order: str = '<',
  planar: bool = False,
  orientation: int = 1,
  white_is_zero: bool = False,
  compressed: bool = False,
  big: bool = False,
  predictor: int = 1,
  tile: tuple[int, int] | None = None,
  rows: int | None = None,
  description: str = '',
  bits: int | None = None,
) -> None:
  """[H, W, C] of any type: grey, grey and alpha, RGB or RGBA. `tile`: height and width of tiles; `rows`: of strips, the
  whole height by default; `big`: a BigTIFF; `bits`: of each value, packed without gaps.
  """
  bytes_each = pixels.dtype.itemsize
  height, width, channels = pixels.shape
  planes = [pixels[..., c : c + 1] for c in range(channels)] if planar else [pixels]
  tall, wide = tile or (rows or height, width)
  pieces = []
  for plane in planes:
    if tile:
      plane = np.pad(plane, ((0, -height % tall), (0, -width % wide), (0, 0)))
    for top in range(0, height, tall):
      pieces += [plane[top : top + tall, left : left + wide] for left in range(0, width, wide)]
  strips = [
    bits_behind_bits(piece, bits) if bits else encoded(piece.astype(piece.dtype.newbyteorder(order)), predictor)
    for piece in pieces
  ]
  strips = [zlib.compress(strip) for strip in strips] if compressed else strips
  begin, number, count = (16, 'Q', 'Q') if big else (8, 'I', 'H')  # offsets, and how many entries there are
  data = b''.join(strips)
  offsets, lengths = [begin + sum(map(len, strips[:n])) for n in range(len(strips))], [len(strip) for strip in strips]
  tags = {
    256: [width],
    257: [height],
    258: [bits or 8 * bytes_each] * channels,
    259: [8 if compressed else 1],
    262: [2 if channels > 2 else 0 if white_is_zero else 1],
    **({270: list(description.encode() + b'\0')} if description else {}),
    **({} if tile else {273: offsets}),
    274: [orientation],
    277: [channels],
    **({} if tile else {278: [tall], 279: lengths}),
    284: [2 if planar else 1],
    **({317: [predictor]} if predictor > 1 else {}),
    **({322: [wide], 323: [tall], 324: offsets, 325: lengths} if tile else {}),
    **({338: [2]} if channels in (2, 4) else {}),
    **({339: [SAMPLE_FORMATS[pixels.dtype.kind]] * channels} if pixels.dtype.kind != 'u' else {}),
  }
  width_of = struct.calcsize(f'{order}{number}')
  directory, more = struct.pack(f'{order}{count}', len(tags)), b''
  after = begin + len(data) + len(directory) + (4 + 2 * width_of) * len(tags) + width_of
  for tag, values in tags.items():
    kind, layout = (2, 'B') if tag == 270 else (16, 'Q') if big else (4, 'I')
    packed = struct.pack(f'{order}{len(values)}{layout}', *values)
    if len(packed) > width_of:
      packed, more = struct.pack(f'{order}{number}', after + len(more)), more + packed
    packed += bytes(width_of - len(packed))
    directory += struct.pack(f'{order}HH{number}', tag, kind, len(values)) + packed
  start = struct.pack(f'{order}2sH', b'II' if order == '<' else b'MM', 43 if big else 42)
  start += struct.pack(f'{order}HH', 8, 0) if big else b''
  path.write_bytes(
    start + struct.pack(f'{order}{number}', begin + len(data)) + data + directory + bytes(width_of) + more
  )


def bits_behind_bits(piece: np.ndarray, bits: int) -> bytes:
  """Rows of bits, the highest first, each filled up to whole bytes."""
  done = b''
  for row in piece:
    text = ''.join(f'{value:0{bits}b}' for value in row.ravel().tolist())
    text += '0' * (-len(text) % 8)
    done += int(text, 2).to_bytes(len(text) // 8, 'big')
  return done


def encoded(piece: np.ndarray, predictor: int) -> bytes:
  """The bytes of a strip or tile [h, w, c]: as they are (1), differences along rows (2), or those of floating-point
  numbers (3), value by value.
  """
  if predictor == 1:
    return piece.tobytes()
  rows, columns, channels = piece.shape
  if predictor == 2:
    bits = piece.view(piece.dtype.str.replace(piece.dtype.kind, 'u'))
    with np.errstate(over='ignore'):
      differences = np.concatenate([bits[:, :1], bits[:, 1:] - bits[:, :-1]], axis=1)
    return differences.astype(bits.dtype).tobytes()
  done = b''
  for row in piece.astype(piece.dtype.newbyteorder('>')).reshape(rows, -1, 1):
    values = [value.tobytes() for value in row]
    together = [value[k] for k in range(piece.dtype.itemsize) for value in values]
    done += bytes((byte - (together[n - channels] if n >= channels else 0)) % 256 for n, byte in enumerate(together))
  assert len(done) == math.prod((rows, columns, channels, piece.dtype.itemsize))
  return done
