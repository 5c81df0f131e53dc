"""Python programs as processes of their own, without the seconds in which each would import JAX and other packages.

`run` does what `subprocess.run([sys.executable, ...])` does, in a fork of one process that has imported those packages.
What a program imports of this project it imports itself. JAX reads its settings in the environment when it is imported,
so here they are those of the tests, but for JAX_PLATFORMS: a program that needs others, or has to do without a package,
needs `subprocess`.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = (
  'absl.app', 'flax.linen', 'grain', 'h5py', 'jax', 'matplotlib.figure', 'ml_collections.config_flags', 'optax',
  'orbax.checkpoint', 'PIL.Image', 'scipy.ndimage', 'scipy.signal', 'tensorflow_datasets', 'tqdm',
)  # fmt: skip


def run(*arguments, **options):
  """The completed process of `python ARGUMENTS`. Arguments and options are those of `Program`."""
  return Program(*arguments, **options).wait()


class Program:
  """A running program. Only one runs at a time: the next one starts when it has ended.

  Attributes:
    pid: the process.
  """

  def __init__(self, *arguments, cwd=ROOT, environment=None, timeout=300):
    """Starts it.

    Args:
      arguments: -m MODULE, -c CODE or a file, then the program's own.
      cwd: its working directory.
      environment: variables that differ from those of the tests.
      timeout: seconds after which it is ended by SIGALRM.
    """
    self._server, self._arguments = start_server(), arguments
    if before := vars(self._server).get('program'):  # of a test that failed before it ended
      before.wait()
    self._server.program = self
    request = [[*map(str, arguments)], str(cwd), {**os.environ, **(environment or {})}, timeout]
    print(json.dumps(request), file=self._server.stdin, flush=True)
    self.pid = self._answer()

  def _answer(self):
    line = self._server.stdout.readline()
    assert line, 'the process that forks has ended'
    return json.loads(line)

  def is_running(self):
    return not select.select([self._server.stdout], [], [], 0)[0]

  def wait(self):
    """Its result, once it has ended."""
    answer, self._server.program = self._answer(), None
    return subprocess.CompletedProcess(self._arguments, *answer)


@functools.cache
def start_server():
  pipe = subprocess.PIPE
  server = subprocess.Popen([sys.executable, __file__], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
  atexit.register(server.__exit__, None, None, None)  # it ends with its input
  return server


def serve():
  """Forks for each request on standard input; returns the arguments in the fork, in which they are to be run."""
  for line in iter(sys.stdin.readline, ''):
    arguments, cwd, environment, timeout = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
      with warnings.catch_warnings(action='ignore'):  # of Python 3.12, about the threads of packages
        child = os.fork()
      if not child:
        signal.alarm(timeout)
        for number, opened in enumerate((os.open(os.devnull, os.O_RDONLY), out.fileno(), error.fileno())):
          os.dup2(opened, number)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.modules['jax'].config.update('jax_platforms', environment.get('JAX_PLATFORMS'))
        return arguments
      print(child, flush=True)
      status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
      said = [file.seek(0) or file.read().decode() for file in (out, error)]
    print(json.dumps([status, *said]), flush=True)
  sys.exit()


def become(arguments):
  """Runs a program as Python would, and ends the process."""
  kind, *rest = arguments
  sys.path[0] = str(Path(kind).parent.resolve()) if kind not in ('-m', '-c') else os.getcwd()
  sys.path[1:1] = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
  try:
    if kind == '-m':
      sys.argv = rest
      runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    elif kind == '-c':
      sys.argv, sys.modules['__main__'] = ['-c', *rest[1:]], types.ModuleType('__main__')
      exec(compile(rest[0], '<string>', 'exec'), vars(sys.modules['__main__']))
    else:
      sys.argv = arguments
      runpy.run_path(kind, run_name='__main__')
  except SystemExit as error:
    leave.status = error.code if isinstance(error.code, int) else int(error.code is not None)
    raise
  except BaseException:
    leave.status = 1
    raise


def leave():
  """Ends the process without the tenth of a second in which Python would take its modules apart."""
  sys.stdout.flush(), sys.stderr.flush()
  os._exit(leave.status)


leave.status = 0

if __name__ == '__main__':
  atexit.register(leave)  # the first registered runs last
  for name in IMPORTED:
    importlib.import_module(name)
  gc.freeze()
  become(serve())
