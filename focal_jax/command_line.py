"""Shared by the project's programs: flags including config files, modes, help, and one-line errors."""

import dataclasses
import io
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import absl.logging
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from focal_jax.data.names import printable
from focal_jax.errors import InputError, RunError
from focal_jax.files.shipped import find_recipe

log = logging.getLogger(__name__)

FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)  # config files are programs
# Modules that only the extra `train` installs.
_TRAIN_MODULES = (
  'array_record', 'etils', 'grain', 'h5py', 'importlib_resources', 'OpenEXR', 'optax', 'orbax', 'tensorflow_datasets',
)  # fmt: skip
_HELP = ('-h', '--h', '-help', '--help', '-?', '--?', '-helpshort', '--helpshort')
_WIDTH, _COLUMN = 100, 26  # of help, characters


@dataclasses.dataclass(frozen=True)
class Mode:
  """A mode of a program.

  Attributes:
    summary: one line for --help.
    run: called after the flags are parsed; returns the exit status, or None for 0.
    usage: command lines after the mode, one for each way to call it.
    flags: names of the accepted flags.
    required: names of the required flags.
    words: the flag that positional arguments set; None: none are accepted.
    help: flag help that differs in this mode.
  """

  summary: str
  run: Callable[[], int | None]
  usage: Sequence[str]
  flags: Sequence[str]
  required: Sequence[str] = ()
  words: str | None = None
  help: Mapping[str, str] = dataclasses.field(default_factory=dict)


def show_progress() -> None:
  """Logs this project's messages, and only warnings of others: Orbax writes some twenty lines per checkpoint."""
  absl.logging.set_verbosity(absl.logging.WARNING)
  logging.getLogger('matplotlib').setLevel(logging.ERROR)  # it warns where it has no folder for its cache
  logging.getLogger('focal_jax').setLevel(logging.INFO)
  absl.logging.get_absl_handler().setFormatter(_Line())


class _Line(logging.Formatter):
  """The time and the message, with the level of what is more than information; absl adds date, thread and line."""

  def format(self, record: logging.LogRecord) -> str:
    level = '' if record.levelno <= logging.INFO else f'{record.levelname.lower()}: '
    return f'{self.formatTime(record, "%m-%d %H:%M:%S")} {level}{super().format(record)}'


def run_program(main: Callable[[list[str]], int | None], name: str) -> None:
  """Parses the flags, calls `main` with the remaining arguments, and exits; uses the compilation cache.

  An InputError or RunError is printed as one line after `name`, and sets the exit status. So are flag errors, unknown
  config fields and missing packages.
  """

  _run(lambda argv: _with_cache(lambda: main(argv)), name)


def _with_cache(main: Callable[[], int | None]) -> int | None:
  from focal_jax.backend import use_compilation_cache  # not before the flags are right: it imports JAX

  folder = use_compilation_cache()
  show, told = warnings.showwarning, []

  def show_once(message: Warning | str, *arguments: Any) -> None:
    # JAX warns for each program that it cannot read from the cache, or write to it because the disk is full.
    if 'persistent compilation cache' not in str(message):
      show(message, *arguments)
    elif not told:
      told.append(message)
      log.warning(
        'The compilation cache cannot be used, so everything is compiled anew. If damaged, delete it: %s', folder
      )

  warnings.showwarning = show_once
  return main()


def _run(main: Callable[[list[str]], int | None], name: str) -> None:
  # By default SIGTERM ends Python at once; as an exception it lets half-written results be removed. Training and sweeps
  # set handlers of their own.
  for number, default in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is default:
      signal.signal(number, _stop)
  sys.unraisablehook = _ignored
  _print_any_letter()
  try:
    app.run(main, flags_parser=_parse)
  except (InputError, RunError) as error:
    print(f'{name}: error: {printable(str(error))}', file=sys.stderr)
    sys.exit(error.status)
  except SystemExit:
    raise
  except BaseException as error:
    # An interrupted import may raise ImportError instead.
    if isinstance(error, KeyboardInterrupt) or _stopped_by:
      number = _stopped_by[-1] if _stopped_by else signal.SIGINT
      if number == signal.SIGINT:
        print(f'{name}: interrupted', file=sys.stderr)
      sys.exit(128 + number)
    module = (error.name or '').partition('.')[0] if isinstance(error, ModuleNotFoundError) else ''
    if module not in _TRAIN_MODULES:
      raise
    print(f"{name}: error: this needs '{module}'; install it with: pip install 'focal_jax[train]'", file=sys.stderr)
    sys.exit(InputError.status)
  finally:
    _ended.set()
    for number in set(_stopped_by):
      signal.signal(number, signal.SIG_IGN)  # Python is about to end


def _print_any_letter() -> None:
  """Letters that the locale lacks are printed as escapes; by default they are an error on stdout."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


_stopped_by: list[int] = []  # signals
_ended = threading.Event()
_REPEAT_S = 0.5  # interval at which the signal is repeated until the program ends


def _stop(number: int, _: Any) -> None:
  """Ends the program by an exception, so that half-written results are removed.

  The exception may get lost: Python ignores those in destructors and in callbacks of its garbage collector, and
  libraries may go on without a module whose import was interrupted. So the signal is repeated.
  """
  error = sys.exception()
  while error is not None:
    if isinstance(error, KeyboardInterrupt | SystemExit) and _stopped_by:
      return  # already ending; not to interrupt what removes results
    error = error.__context__
  if not _stopped_by:
    threading.Thread(target=_repeat, args=(number,), daemon=True).start()
  _stopped_by.append(number)
  raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _repeat(number: int) -> None:
  while not _ended.wait(_REPEAT_S):
    os.kill(os.getpid(), number)


def _ignored(unraisable: Any) -> None:
  """`sys.unraisablehook` that does not print the exceptions of `_stop`."""
  if not (_stopped_by and isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit)):
    sys.__unraisablehook__(unraisable)


def run_modes(modes: Mapping[str, Mode], name: str, about: str, default: str, only: str | None = None) -> None:
  """Runs the mode given by the first word of the command line, or by --mode.

  Args:
    modes: by name. Their flags and the string flag `mode` are defined in absl's FLAGS.
    name: prefix of errors.
    about: one line for --help.
    default: the mode if none is given.
    only: the only mode of a program without others.
  """
  flags.FLAGS.set_gnu_getopt(True)  # flags and words in any order
  arguments = sys.argv[1:]
  if any(argument in _HELP for argument in arguments) or not arguments:
    print(_help(modes, about, only, _mentioned_mode(modes, arguments)))
    return
  _run(lambda argv: _run_mode(modes, argv[1:], default, only), name)


def _run_mode(modes: Mapping[str, Mode], words: list[str], default: str, only: str | None) -> int | None:
  name = flags.FLAGS['mode'].value or only
  if name is None:
    name, *words = words or [default]
  expected = only or f'one of {", ".join(modes)}'
  if name not in ([only] if only else modes):
    raise InputError(f"unknown mode '{name}', expected {expected}; see --help")
  mode = modes[name]
  see = 'see --help' if only else f'see {name} --help'
  for other in sorted({flag for one in modes.values() for flag in one.flags} - set(mode.flags)):
    if flags.FLAGS[other].present:
      takers = ', '.join(key for key, one in modes.items() if other in one.flags)
      raise InputError(f'--{other}: a flag of {takers}, which {name} does not take; {see}')
  if words:
    _take_words(name, mode, words, see)
  for flag in mode.required:
    if flags.FLAGS[flag].value in (None, '', [], ['']):
      raise InputError(f'{name} needs --{flag}; {see}')
  show_progress()
  return _with_cache(mode.run)


def _take_words(name: str, mode: Mode, words: list[str], see: str) -> None:
  """Sets the mode's flag from the positional arguments."""
  if mode.words is None:
    raise InputError(f"unexpected argument '{words[0]}', expected flags only; {see}")
  flag = flags.FLAGS[mode.words]
  if flag.present:
    raise InputError(f"--{flag.name} is given, and '{words[0]}' behind {name} too; expected one of the two")
  if isinstance(flag.parser, flags.ListParser):
    flag.value = words
  elif len(words) == 1:
    flag.value = words[0]
  else:
    raise InputError(f"unexpected argument '{words[1]}' behind '{words[0]}', expected one for --{flag.name}; {see}")


def _mentioned_mode(modes: Mapping[str, Mode], arguments: list[str]) -> str | None:
  """The mode in a command line that asks for help, which may be invalid."""
  words = [re.sub(r'^--?mode=', '', argument) for argument in arguments]
  return next((word for word in words if word in modes), None)


def _program_name() -> str:
  path = Path(sys.argv[0])
  if path.suffix != '.py':
    return path.name
  module = path.parent if path.stem == '__main__' else path.with_suffix('')
  return f'python -m {module.parent.name}.{module.name}'


def _help(modes: Mapping[str, Mode], about: str, only: str | None, mentioned: str | None) -> str:
  """Help of the program, or of one mode."""
  program = _program_name()
  if only is None and mentioned is None:
    return '\n'.join(
      [
        f'usage: {program} MODE [...]',
        '',
        about,
        '',
        'modes:',
        *(line for key, mode in modes.items() for line in _entry(key, mode.summary)),
        '',
        f'{program} MODE --help shows the flags of one mode, --helpfull those of all libraries.',
        'The mode may also be given as --mode=MODE.',
      ]
    )
  mode = modes[only or mentioned]
  start = program if only else f'{program} {mentioned}'
  usages = [f'{"usage:" if not index else "      "} {start} {usage}' for index, usage in enumerate(mode.usage)]
  entries = [line for flag in mode.flags for line in _entry(*_flag_help(flags.FLAGS[flag], mode))]
  return '\n'.join([*usages, '', mode.summary, '', 'flags:', *entries])


def _flag_help(flag: flags.Flag, mode: Mode) -> tuple[str, str]:
  text = mode.help.get(flag.name, flag.help)
  if flag.boolean:
    return f'--{flag.name}', text
  if isinstance(flag.parser, flags.EnumParser):
    text = re.sub(r'^<.*?>: ', '', text)  # remove absl's prefix
    if flag.name not in mode.help and not all(value in text for value in flag.parser.enum_values):
      text = f'{text} One of {", ".join(flag.parser.enum_values)}.'
  if flag.default not in (None, []) and 'efault' not in text:
    text = f'{text} Default: {flag.default}.'
  return f'--{flag.name}={flag.name.upper()}', f'{text} Required.' if flag.name in mode.required else text


def _entry(name: str, text: str) -> list[str]:
  lines = textwrap.wrap(text, _WIDTH - _COLUMN)
  first = f'  {name}'.ljust(_COLUMN)
  if len(first) > _COLUMN or not first.endswith('  '):  # the name is long
    return [first.rstrip(), *(' ' * _COLUMN + line for line in lines)]
  return [first + lines[0], *(' ' * _COLUMN + line for line in lines[1:])]


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(_with_found_recipe(argv) if 'config' in flags.FLAGS else argv)
    config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
    if config is not None:
      config.to_dict()  # a file that could not be loaded only says so when it is used
      _switch_networks(config)
    return rest
  except InputError:
    raise
  except FLAG_ERRORS as error:
    raise InputError(flag_message(error)) from None


def _with_found_recipe(argv: list[str]) -> list[str]:
  """The command line with --config=RECIPE as the path of a file, so that recipes are found from any folder."""
  found = list(argv)
  for index, argument in enumerate(argv):
    if match := re.fullmatch(r'(--?config=)(.+)', argument, re.DOTALL):
      found[index] = match[1] + find_recipe(match[2])
    elif argument in ('-config', '--config') and index + 1 < len(argv):
      found[index + 1] = find_recipe(argv[index + 1])
  return found


def _switch_networks(config: ConfigDict) -> None:
  """Applies flags such as `--config.model.depth.name=curves`, see `config.switch_networks`."""
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  if any(field.startswith(('model.depth', 'model.align')) for field in overrides):
    from focal_jax.config import switch_networks  # with all networks, which other programs need not wait for

    switch_networks(config, overrides)


def flag_message(error: Exception) -> str:
  """A one-line message of an exception raised by parsing flags; config files are programs and may raise anything."""
  if isinstance(error, KeyError | AttributeError):
    name = re.search(r'\w+', str(error))[0]  # the first quoted; proposals may follow
    return f'--config: no field {name!r}; expected one of those in the config file'
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  if any(line.startswith('Traceback') for line in lines):  # a config file that raised: what it said is at the end
    lines = [f'--config: {lines[-1]}']
  return ' '.join(lines) or repr(error)
