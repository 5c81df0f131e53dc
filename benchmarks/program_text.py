"""What the text of a compiled program and XLA's errors say.

A TPU stores arrays in tiles, usually of 8 x 128 values over the two minor axes; the last is that of its lanes. An array
with a minor axis of length 8 takes 16 times its memory. XLA chooses which axis is minor, and writes it in the text.
"""

import math
import re

_TYPE_BYTES = {'pred': 1, 's32': 4, 'u32': 4, 'f32': 4, 'bf16': 2, 'f16': 2, 's8': 1, 'u8': 1}
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\]\{([\d,]*):([^}]*)\}')
# Other names of arrays that exist already, and arrays of the caller.
_NOT_STORED = ('parameter', 'bitcast', 'get-tuple-element', 'tuple', 'constant')


def out_of_memory(message: str) -> str | None:
  """Needed and available memory from XLA's out-of-memory error; None for other errors."""
  if 'RESOURCE_EXHAUSTED' not in message:
    return None
  match = re.search(r'Used ([\d.]+\w) of ([\d.]+\w) (\w+)', message)
  # Vector memory next to the compute units, used by fused computations.
  match = match or re.search(r'size ([\d.]+\w) and limit ([\d.]+\w) exceeded scoped (\w+)', message)
  return f'{match[1]} of {match[2]} {match[3]}' if match else 'out of memory'


def cycles(text: str) -> int | None:
  """XLA's estimate for a TPU program; None if there is none."""
  return sum(int(value) for value in re.findall(r'"estimated_cycles":"(\d+)"', text)) or None


def all_reduces(text: str) -> tuple[int, int]:
  """Number of all-reduces in an optimised program, and the bytes of their results."""
  text = re.sub(r'/\*.*?\*/', '', text)  # long tuples number their elements: /*index=5*/
  count = total = 0
  for shapes in re.findall(r'= ([^=]*?) all-reduce(?:-start)?\(', text):
    count += 1
    for kind, dimensions in re.findall(r'(\w+)\[([\d,]*)\]', shapes):
      total += _TYPE_BYTES.get(kind, 4) * math.prod(int(n) for n in dimensions.split(',') if n)
  return count, total


def stored_bytes(kind: str, shape: list[int], minor_to_major: list[int], tiling: str) -> tuple[int, int]:
  """Bytes of an array's values, and of its tiles in memory.

  Args:
    kind: type of the values, as in the program's text.
    shape: the array's shape.
    minor_to_major: its axes, the minor one first.
    tiling: the rest of its layout, such as 'T(8,128)(2,1)'.
  """
  values = math.prod(shape) * _TYPE_BYTES.get(kind, 4)
  tile = re.match(r'T\(([\d,]+)\)', tiling)
  if not tile:
    return values, values
  sides = [int(side) for side in tile[1].split(',')][::-1]
  padded = [shape[axis] for axis in minor_to_major]
  for n, side in enumerate(sides[: len(padded)]):
    padded[n] = -(-padded[n] // side) * side
  return values, math.prod(padded) * _TYPE_BYTES.get(kind, 4)


def stored(text: str, depth: int = 2) -> dict[str, tuple[int, int]]:
  """Bytes of the arrays that a program writes to the chip's memory, and bytes that they take there.

  Args:
    text: the optimised program. Loop bodies count once; what stays in vector memory does not count.
    depth: number of nested modules that name a layer.

  Returns:
    For each layer, by its name below the outermost module ('' for everything else): values and memory, bytes.
  """
  fused = set(re.findall(r'(?:calls|to_apply)=(%[\w.-]+)', text))
  found = {}
  for computation in re.split(r'\n(?=%|ENTRY)', text):
    if computation.split(' ', 1)[0] in fused:
      continue
    for line in computation.splitlines()[1:]:
      match = re.match(r'\s+(?:ROOT )?%[\w.-]+ = (.*?) ([a-z][\w-]*)\(', re.sub(r'/\*.*?\*/', '', line))
      if match is None or match[2] in _NOT_STORED or match[2].endswith(('-start', '-done')):
        continue
      name = _layer(line, depth)
      for kind, shape, order, tiling in _ARRAY.findall(match[1]):
        if 'S(' in tiling:
          continue
        numbers = ([int(n) for n in part.split(',') if n] for part in (shape, order))
        sizes = stored_bytes(kind, *numbers, tiling)
        found[name] = tuple(a + b for a, b in zip(found.get(name, (0, 0)), sizes, strict=True))
  return found


def _layer(line: str, depth: int) -> str:
  """The module that an instruction belongs to."""
  name = re.search(r'op_name="[^"]*EndToEnd\)*/([^"]*)"', line)
  # Names of modules; others are functions, as in depth/depth._encode/stem/jit(relu)/max.
  modules = [part for part in name[1].split('/')[:-1] if part.isidentifier()] if name else []
  return '/'.join(modules[:depth])
