"""Reads a PyTorch state dict (`.pth`, `.pt`) without PyTorch, and without running anything that the file says.

Since PyTorch 1.6 `torch.save` writes a zip archive of uncompressed entries: `<name>/data.pkl`, a pickle of the saved
object in which every tensor refers to a storage by its key; `<name>/data/<key>`, the raw numbers of that storage; and,
since 2.1, `<name>/byteorder`.

A pickle is a program that may import and call anything, so this one is never handed to `pickle`. `_unpickle` interprets
the few instructions that checkpoints need; all that they can build is None, numbers, strings, tuples, lists, dicts and
the inert records below. Names in the file are compared with a short list and never looked up.
"""

import dataclasses
import math
import pickletools
import reprlib
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np

from focal_jax.errors import InputError

_ORDERED_DICT = 'collections OrderedDict'
_TENSOR = 'torch._utils _rebuild_tensor_v2'
_PARAMETER = 'torch._utils _rebuild_parameter'
# NumPy has no bfloat16: its bits are read as integers and widened to float32, which is exact.
_STORAGE_DTYPES = {
  'torch DoubleStorage': np.dtype('f8'),
  'torch FloatStorage': np.dtype('f4'),
  'torch HalfStorage': np.dtype('f2'),
  'torch BFloat16Storage': np.dtype('u2'),
  'torch LongStorage': np.dtype('i8'),
  'torch IntStorage': np.dtype('i4'),
  'torch ShortStorage': np.dtype('i2'),
  'torch CharStorage': np.dtype('i1'),
  'torch ByteStorage': np.dtype('u1'),
  'torch BoolStorage': np.dtype('u1'),
}
_GLOBALS = {_ORDERED_DICT, _TENSOR, _PARAMETER, *_STORAGE_DTYPES}

_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}

_MAX_AXES = 64  # PyTorch's limit, and NumPy's since 2.0.

# Where training scripts put the state dict inside a checkpoint.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')

_ZIP_MAGIC = b'PK\x03\x04'
_LEGACY_MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # a pickle of the number 0x1950a86a20f9469cfc6c
# What zipfile raises on one or another kind of damage.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)


@dataclasses.dataclass(frozen=True)
class _Global:
  """A name that the pickle mentions: 'module name', one of `_GLOBALS`."""

  name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
  """`size` numbers in the entry `<name>/data/<key>`; `kind` is a key of `_STORAGE_DTYPES`."""

  kind: str
  key: str
  size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A strided view of a storage; offset and strides count numbers, not bytes."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


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
    InputError: naming the file, if it is missing, damaged, no such archive, or holds more than tensors and plain data.
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
  """The file's size in bytes, after a look at its first ones."""
  if not path.exists():
    raise InputError('no such file, expected a PyTorch state dict (.pth)')
  if not path.is_file():
    raise InputError('is no file, expected a PyTorch state dict (.pth)')
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

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # pickletools warns of odd escapes in names, which are refused anyway.
    saved = _unpickle(archive.read(pickles[0]))
  tensors = _find_state_dict(saved)
  byte_order = _read_byte_order(archive, folder)
  # Tied tensors name the same storage: it is read once.
  storages = {tensor.storage for tensor in tensors.values()}
  numbers = {storage: _read_storage(archive, folder, storage, byte_order) for storage in storages}
  return {name: _view(name, tensor, numbers[tensor.storage]) for name, tensor in tensors.items()}


def _find_state_dict(saved: object) -> dict[str, _Tensor]:
  """The dict of tensors in what was saved, without wrappers."""
  if not isinstance(saved, dict):
    raise InputError(f'holds an object of type {type(saved).__name__.strip("_")}, expected a state dict')
  tensors = next((saved[key] for key in _WRAPPERS if isinstance(saved.get(key), dict)), saved)
  if not tensors:
    raise InputError('the state dict is empty, expected tensors')
  for name, value in tensors.items():
    if not isinstance(name, str) or not isinstance(value, _Tensor):
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


def _read_storage(archive: zipfile.ZipFile, folder: str, storage: _Storage, byte_order: str) -> np.ndarray:
  """[storage.size] read-only numbers in native byte order."""
  dtype = _STORAGE_DTYPES[storage.kind]
  shown = f'storage {reprlib.repr(storage.key)}'
  try:
    info = archive.getinfo(f'{folder}data/{storage.key}')
  except KeyError:
    raise InputError(f'{shown} is missing from the archive, expected {storage.size} numbers') from None
  if info.file_size != storage.size * dtype.itemsize:
    raise InputError(f'{shown} has {info.file_size} bytes, expected {storage.size} x {dtype.itemsize}')
  numbers = np.frombuffer(archive.read(info), dtype.newbyteorder(byte_order)).astype(dtype, copy=False)
  if storage.kind == 'torch BFloat16Storage':
    numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
  elif storage.kind == 'torch BoolStorage':
    numbers = numbers != 0
  numbers.flags.writeable = False
  return numbers


def _view(name: str, tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
  """The tensor as a view of its storage, which it cannot leave."""
  elements = math.prod(tensor.shape)
  last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
  # More elements than numbers is an expanded tensor: no weight is, and a copy of one might be of any size.
  if elements > numbers.size or (elements and last >= numbers.size):
    raise InputError(
      f'tensor {reprlib.repr(name)} of shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} '
      f'does not fit its storage of {numbers.size} numbers'
    )
  offset = tensor.offset if elements else 0
  try:
    return np.ndarray(
      tensor.shape, numbers.dtype, numbers, offset * numbers.itemsize, [s * numbers.itemsize for s in tensor.strides]
    )
  except (ValueError, OverflowError) as error:  # Too many axes, or an axis too long beside one of length 0.
    raise InputError(f'tensor {reprlib.repr(name)} is no array: {error}') from None


def _unpickle(pickled: bytes) -> object:
  """Interprets a pickle by hand: plain data, `_Storage`, `_Tensor` and `_Global` are all that can come out.

  The stack machine is documented in the standard library's `pickletools`. Nothing here recurses, whatever the nesting.
  """
  stack: list = []
  marks: list[int] = []
  memo: dict[int, object] = {}

  def pop_from(start: int) -> list:
    if not 0 <= start <= len(stack):
      raise IndexError('stack underflow')
    items = stack[start:]
    del stack[start:]
    return items

  try:
    for opcode, argument, position in pickletools.genops(pickled):
      match opcode.name:
        case 'PROTO' | 'FRAME':
          pass
        case 'STOP':
          return stack.pop()
        case 'NONE' | 'NEWTRUE' | 'NEWFALSE' | 'EMPTY_TUPLE' as name:
          stack.append(_CONSTANTS[name])
        case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'BINUNICODE' | 'SHORT_BINUNICODE':
          stack.append(argument)
        case 'EMPTY_DICT':
          stack.append({})
        case 'EMPTY_LIST':
          stack.append([])
        case 'MARK':
          marks.append(len(stack))
        case 'TUPLE':
          stack.append(tuple(pop_from(marks.pop())))
        case 'TUPLE1' | 'TUPLE2' | 'TUPLE3' as name:
          stack.append(tuple(pop_from(len(stack) - _TUPLES[name])))
        case 'APPEND':
          _extend(stack, pop_from(len(stack) - 1))
        case 'APPENDS':
          _extend(stack, pop_from(marks.pop()))
        case 'SETITEM':
          _update(stack, pop_from(len(stack) - 2))
        case 'SETITEMS':
          _update(stack, pop_from(marks.pop()))
        case 'BINPUT' | 'LONG_BINPUT':
          memo[argument] = stack[-1]
        case 'MEMOIZE':
          memo[len(memo)] = stack[-1]
        case 'BINGET' | 'LONG_BINGET':
          stack.append(memo[argument])
        case 'GLOBAL':
          stack.append(_admit(argument))
        case 'STACK_GLOBAL':
          name, module = stack.pop(), stack.pop()
          if not (isinstance(module, str) and isinstance(name, str)):
            raise InputError(f'data.pkl has the name {reprlib.repr(name)}, expected a string')
          stack.append(_admit(f'{module} {name}'))
        case 'BINPERSID':
          stack.append(_storage(stack.pop()))
        case 'REDUCE':
          arguments, function = stack.pop(), stack.pop()
          stack.append(_call(function, arguments))
        case 'BUILD':
          # Sets attributes. A state dict has one, `_metadata`, its modules' versions: dropped, as any other would be.
          stack.pop()
          if not isinstance(stack[-1], dict):
            raise InputError(f'data.pkl sets attributes of {reprlib.repr(stack[-1])}, expected only those of a dict')
        case name:
          raise InputError(f'data.pkl has instruction {name} at byte {position}, which no state dict needs')
  except InputError:
    raise
  except (IndexError, KeyError, ValueError) as error:  # An empty stack, an unknown memo, malformed bytes.
    raise InputError(f'data.pkl is no valid pickle ({type(error).__name__}: {error})') from None
  raise InputError('data.pkl ends early')


def _extend(stack: list, items: list) -> None:
  if not isinstance(stack[-1], list):
    raise InputError(f'data.pkl appends to {reprlib.repr(stack[-1])}, expected a list')
  stack[-1].extend(items)


def _update(stack: list, items: list) -> None:
  if not isinstance(stack[-1], dict):
    raise InputError(f'data.pkl sets items of {reprlib.repr(stack[-1])}, expected a dict')
  for key, value in zip(items[::2], items[1::2], strict=True):
    # Only these: the hash of a tuple nested deeply enough overflows the interpreter's own stack.
    if not isinstance(key, str | int):
      raise InputError(f'data.pkl has the dict key {reprlib.repr(key)}, expected a string or an integer')
    stack[-1][key] = value


def _admit(name: str) -> _Global:
  if name not in _GLOBALS:
    shown = name.replace(' ', '.')[:100]
    raise InputError(f'data.pkl asks for {shown!r}, which no state dict needs: refused, nothing of the file was run')
  return _Global(name)


def _storage(reference: object) -> _Storage:
  match reference:
    case ('storage', _Global(kind), str(key), str(), int(size)) if kind in _STORAGE_DTYPES and size >= 0:
      return _Storage(kind, key, size)
  raise InputError(f'data.pkl refers to {reprlib.repr(reference)}, expected (storage, type, key, device, size)')


def _call(function: object, arguments: object) -> dict | _Tensor:
  """What PyTorch's function of that name would make, as inert data."""
  match function, arguments:
    case _Global(name), () if name == _ORDERED_DICT:
      return {}
    case _Global(name), (_Storage() as storage, int(offset), tuple(shape), tuple(strides), _, _, *_) if name == _TENSOR:
      counts = (offset, *shape, *strides)
      if len(shape) == len(strides) <= _MAX_AXES and all(type(n) is int and 0 <= n < 2**63 for n in counts):
        return _Tensor(storage, offset, shape, strides)
    case _Global(name), (_Tensor() as tensor, _, _) if name == _PARAMETER:
      return tensor
  shown = function.name.replace(' ', '.') if isinstance(function, _Global) else reprlib.repr(function)
  raise InputError(f'data.pkl calls {shown} with {reprlib.repr(arguments)}, which PyTorch does not write')
