"""Reads a PyTorch state dict (`.pth`, `.pt`) without PyTorch, and without running any code from the file.

Since PyTorch 1.6 `torch.save` writes a zip archive of uncompressed entries: `<name>/data.pkl`, a pickle of the saved
object in which every tensor refers to a storage by its key; `<name>/data/<key>`, the raw numbers of that storage; and,
since 2.1, `<name>/byteorder`.

A pickle is a program that may import and call anything. `_Unpickler` allows only the instructions and names that a
state dict needs. A name is mapped to a function of this module and never imported.
"""

import dataclasses
import functools
import io
import math
import pickle
import reprlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from focal_jax.errors import InputError

# Keys under which training scripts store the state dict in a checkpoint.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')

_ZIP_MAGIC = b'PK\x03\x04'
_LEGACY_MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # a pickle of the number 0x1950a86a20f9469cfc6c
# Errors that zipfile raises for damaged files.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)


# Errors that `pickle` raises if its stack is empty, a mark or memo is missing, or an object has the wrong type.
_PICKLE_ERRORS = (pickle.UnpicklingError, AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError)

_MAX_AXES = 64  # PyTorch's limit, and NumPy's since 2.0.


@dataclasses.dataclass(frozen=True)
class _StorageType:
  """The stored type of numbers, and the type they are converted to."""

  stored: np.dtype
  becomes: np.dtype


def _rebuild_tensor(numbers, offset, shape, strides, requires_grad, hooks, metadata=None) -> np.ndarray:
  """`torch._utils._rebuild_tensor_v2`: a view within a storage; offset and strides count numbers."""
  arguments = numbers, offset, shape, strides
  well_typed = [type(argument) for argument in arguments] == [np.ndarray, int, tuple, tuple]
  if not (
    well_typed
    and numbers.ndim == 1
    and len(shape) == len(strides) <= _MAX_AXES
    and all(type(n) is int and 0 <= n < 2**63 for n in (offset, *shape, *strides))
  ):
    raise InputError(f'data.pkl has a tensor of {reprlib.repr(arguments)}, which PyTorch does not write')
  elements = math.prod(shape)
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  # More elements than numbers is an expanded tensor, which no weight is; its copy could have any size.
  if elements > numbers.size or (elements and last >= numbers.size):
    raise InputError(
      f'a tensor of shape {shape}, strides {strides} and offset {offset} does not fit its storage of {numbers.size} '
      'numbers'
    )
  size = numbers.itemsize
  try:
    return np.ndarray(shape, numbers.dtype, numbers, offset * size if elements else 0, [s * size for s in strides])
  except (ValueError, OverflowError) as error:  # Too many axes, or an axis too long beside one of length 0.
    raise InputError(f'a tensor of shape {shape} is not a valid array: {error}') from None


def _rebuild_parameter(tensor, requires_grad, hooks) -> np.ndarray:
  """`torch._utils._rebuild_parameter`."""
  if not isinstance(tensor, np.ndarray):
    raise InputError(f'data.pkl has a parameter of {reprlib.repr(tensor)}, which PyTorch does not write')
  return tensor


# The only names that a file may use. Functions, not classes, because a pickle can instantiate any class it is given.
_GLOBALS = {
  ('collections', 'OrderedDict'): lambda: {},
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
} | {
  ('torch', f'{name}Storage'): _StorageType(np.dtype(stored), np.dtype(becomes))
  for name, stored, becomes in (
    ('Double', 'f8', 'f8'),
    ('Float', 'f4', 'f4'),
    ('Half', 'f2', 'f2'),
    ('BFloat16', 'u2', 'f4'),  # NumPy has no bfloat16: its bits are widened to float32, which is exact
    ('Long', 'i8', 'i8'),
    ('Int', 'i4', 'i4'),
    ('Short', 'i2', 'i2'),
    ('Char', 'i1', 'i1'),
    ('Byte', 'u1', 'u1'),
    ('Bool', 'u1', '?'),
  )
}
_INSTRUCTIONS = (
  *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK),
  *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
  *(pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
  *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
  *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
  *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
  *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.REDUCE, pickle.BUILD),
)


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
  """The tensors of a PyTorch state dict, by name, in the order of the file.

  A checkpoint that keeps the state dict under 'state_dict', 'model_state_dict' or 'model' is unwrapped (its other
  entries are ignored), and so are names that all begin with 'module.' (DataParallel).

  Args:
    path: a file written by `torch.save`, PyTorch 1.6 or newer, of any device and byte order.

  Returns:
    Read-only arrays in PyTorch's layout, not copied from the storages, so that tied or transposed tensors may share
    memory or not be contiguous. dtypes as saved, except bfloat16, which becomes float32 (exactly).

  Raises:
    InputError: naming the file, if it is missing, damaged, another kind of file, or holds more than plain data.
  """
  path = Path(path)
  try:
    file_size = _check_magic(path)
    with zipfile.ZipFile(path) as archive:
      return _read_archive(archive, file_size)
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  except _ZIP_ERRORS as error:
    raise InputError(
      f'{path}: cannot be read ({type(error).__name__}: {error}), expected a complete zip archive from torch.save'
    ) from error


def _check_magic(path: Path) -> int:
  """Checks the first bytes of the file; returns its size in bytes."""
  if not path.exists():
    raise InputError('no such file, expected a PyTorch state dict (.pth)')
  if not path.is_file():
    raise InputError('is not a file, expected a PyTorch state dict (.pth)')
  with path.open('rb') as file:
    head = file.read(len(_LEGACY_MAGIC))
  if head == _LEGACY_MAGIC:
    raise InputError(
      'is in the format of PyTorch before 1.6, expected the zip archive of newer ones; '
      'load it with PyTorch (weights_only=True) and save it again'
    )
  if not head:
    raise InputError('is empty, expected a zip archive from torch.save')
  if not head.startswith(_ZIP_MAGIC):
    raise InputError(f'begins with {head!r}, expected a zip archive from torch.save ({_ZIP_MAGIC!r})')
  return path.stat().st_size


def _read_archive(archive: zipfile.ZipFile, file_size: int) -> dict[str, np.ndarray]:
  # torch.save neither compresses nor encrypts: entries bigger than the file can only be meant to exhaust the memory.
  for info in archive.infolist():
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
      raise InputError(
        f'entry {reprlib.repr(info.filename)} is compressed or encrypted, expected it stored as torch.save does'
      )
  unpacked = sum(info.file_size for info in archive.infolist())
  if unpacked > file_size:
    raise InputError(f'entries take {unpacked} bytes unpacked, expected no more than the {file_size} of the file')

  pickles = [name for name in archive.namelist() if name.count('/') == 1 and name.endswith('/data.pkl')]
  if len(pickles) != 1:
    raise InputError(f'zip archive with {len(pickles)} entries <name>/data.pkl, expected 1: not from torch.save?')
  folder = pickles[0].removesuffix('data.pkl')

  read = functools.partial(_read_storage, archive, folder, _read_byte_order(archive, folder))
  try:
    saved = _Unpickler(archive.read(pickles[0]), read).load()
  except InputError:
    raise
  except _PICKLE_ERRORS as error:
    raise InputError(f'data.pkl is not a valid pickle ({type(error).__name__}: {reprlib.repr(str(error))})') from None
  return _find_state_dict(saved)


def _find_state_dict(saved: object) -> dict[str, np.ndarray]:
  """The dict of tensors in the saved object, without wrappers."""
  if not isinstance(saved, dict):
    raise InputError(f'holds an object of type {type(saved).__name__}, expected a state dict')
  tensors = next((saved[key] for key in _WRAPPERS if isinstance(saved.get(key), dict)), saved)
  if not tensors:
    raise InputError('the state dict is empty, expected tensors')
  for name, value in tensors.items():
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
      raise InputError(
        f'entry {reprlib.repr(name)} of the state dict is {reprlib.repr(value)}, expected a tensor; '
        f'a checkpoint keeps its state dict under one of {", ".join(_WRAPPERS)}'
      )
  if all(name.startswith('module.') for name in tensors):
    return {name.removeprefix('module.'): tensor for name, tensor in tensors.items()}
  return tensors


def _read_byte_order(archive: zipfile.ZipFile, folder: str) -> str:
  """'<' or '>'; files from before PyTorch 2.1 do not say and are little-endian in practice."""
  if f'{folder}byteorder' not in archive.namelist():
    return '<'
  found = archive.read(f'{folder}byteorder')
  if found not in (b'little', b'big'):
    raise InputError(f'byteorder is {reprlib.repr(found)}, expected little or big')
  return '<' if found == b'little' else '>'


def _read_storage(
  archive: zipfile.ZipFile, folder: str, byte_order: str, kind: _StorageType, key: str, size: int
) -> np.ndarray:
  """[size] read-only numbers in native byte order."""
  dtype = kind.stored
  shown = f'storage {reprlib.repr(key)}'
  try:
    info = archive.getinfo(f'{folder}data/{key}')
  except KeyError:
    raise InputError(f'{shown} is missing from the archive, expected {size} numbers') from None
  if info.file_size != size * dtype.itemsize:
    raise InputError(f'{shown} has {info.file_size} bytes, expected {size} x {dtype.itemsize}')
  numbers = np.frombuffer(archive.read(info), dtype.newbyteorder(byte_order)).astype(dtype, copy=False)
  if (dtype, kind.becomes) == (np.uint16, np.float32):  # bfloat16 is the upper half of a float32
    numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
  numbers = numbers.astype(kind.becomes, copy=False)
  numbers.flags.writeable = False
  return numbers


class _Instructions(dict):
  """The `pickle` instructions that a state dict needs, by opcode."""

  def __missing__(self, code: int):
    name = f'{chr(code)!r} (0x{code:02x})'
    raise InputError(f'data.pkl has the instruction {name}, which no state dict needs; nothing in it was run')


class _Unpickler(pickle._Unpickler):
  """Unpickles plain data and tensors and rejects everything else.

  Based on the Python version of `pickle.Unpickler`, whose instructions can be restricted. The C version would take
  objects from the process's extension registry (EXT1) without calling `find_class`.
  """

  def __init__(self, pickled: bytes, read_storage: Callable[[_StorageType, str, int], np.ndarray]):
    super().__init__(io.BytesIO(pickled))
    self.read_storage = functools.cache(read_storage)  # tied tensors name the same storage

  dispatch = _Instructions({code[0]: pickle._Unpickler.dispatch[code[0]] for code in _INSTRUCTIONS})

  def find_class(self, module: str, name: str) -> object:
    if (module, name) not in _GLOBALS:
      shown = f'{module}.{name}'[:100]
      raise InputError(f'data.pkl asks for {shown!r}, which no state dict needs; nothing in the file was run')
    return _GLOBALS[module, name]

  def persistent_load(self, reference: object) -> np.ndarray:
    match reference:
      case ('storage', _StorageType() as kind, str(key), str(), int(size)) if size >= 0:
        return self.read_storage(kind, key, size)
    raise InputError(f'data.pkl refers to {reprlib.repr(reference)}, expected (storage, type, key, device, size)')

  def load_build(self) -> None:
    # Sets attributes. A state dict has one, `_metadata`, with module versions. All attributes are dropped.
    self.stack.pop()
    if not isinstance(self.stack[-1], dict):
      raise InputError(f'data.pkl sets attributes of {reprlib.repr(self.stack[-1])}, expected only those of a dict')

  def load_setitem(self) -> None:
    _check_keys(self.stack[-3], self.stack[-2:-1])
    super().load_setitem()

  def load_setitems(self) -> None:
    _check_keys(self.metastack[-1][-1], self.stack[::2])
    super().load_setitems()

  dispatch |= {pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


def _check_keys(target: object, keys: list) -> None:
  if not isinstance(target, dict):
    raise InputError(f'data.pkl sets items of {reprlib.repr(target)}, expected a dict')
  for key in keys:
    # Only these types: hashing a deeply nested tuple overflows the interpreter's stack.
    if not isinstance(key, str | int):
      raise InputError(f'data.pkl has the dict key {reprlib.repr(key)}, expected a string or an integer')
