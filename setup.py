"""The compiled half of Spanway: every module of ``proxy`` that has a ``.pxd`` beside it.

``NAME.pxd`` gives the types; what is compiled is ``NAME.pyx`` where there is one, a twin written for the compiler, else
``NAME.py`` as it stands. Without a C compiler nothing is built, and Spanway runs from its Python files, which mean the
same: all or none, since compiled modules share structs. In the environment:

``SPANWAY_PURE=1``
    build nothing (and, later, use nothing that was built)
``SPANWAY_COMPILED=1``
    fail where nothing can be built
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
FLAGS = ["-O3", "-fvisibility=hidden", "-g0"]
DIRECTIVES = {
    "language_level": 3,
    # Types come from the .pxd alone: Python's int has no bounds, and its annotations are not enforced.
    "annotation_typing": False,
    "nonecheck": True,
    "auto_pickle": False,
    "binding": False,
    "emit_code_comments": False,
}


def switched_on(name: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(name, "") not in ("", "0")


def modules() -> list[Extension]:
    """Every module with types."""
    found = []
    for types in sorted(ROOT.glob("proxy/**/*.pxd")):
        twin = types.with_suffix(".pyx")
        source = (twin if twin.exists() else types.with_suffix(".py")).relative_to(ROOT)
        name = ".".join(source.with_suffix("").parts)
        found.append(Extension(name, [str(source)], extra_compile_args=FLAGS))
    return found


def extensions() -> list[Extension]:
    """What to build: nothing where it is not wanted or Cython is not there."""
    if switched_on("SPANWAY_PURE"):
        return []
    try:
        if sys.byteorder != "little":
            raise NotImplementedError("this machine is big-endian, and the span encoder writes little-endian numbers")
        from Cython.Build import cythonize
    except (ImportError, NotImplementedError) as error:
        give_up(error)
        return []
    made: list[Extension] = cythonize(
        modules(), build_dir="build/cython", compiler_directives=DIRECTIVES, quiet=True, nthreads=os.cpu_count() or 1
    )
    return made


def give_up(error: Exception) -> None:
    """Say why nothing is compiled, or fail with it."""
    if switched_on("SPANWAY_COMPILED"):
        raise error
    # A compiler's error names its whole command.
    why = textwrap.shorten(str(error), 120, placeholder=" ...")
    sys.stderr.write(f"spanway: not compiled, it will run from its Python files, at several times the cost ({why})\n")


class BuildAllOrNone(build_ext):
    """Leaves no module compiled when one cannot be."""

    def run(self) -> None:
        """Build, or clean up."""
        self.parallel = self.parallel or os.cpu_count() or 1
        in_place = self.inplace
        try:
            super().run()
        except Exception as error:  # of the compiler: each has its own
            give_up(error)
            # Built beside the sources or not, setuptools builds elsewhere first; what an older build left goes too.
            for self.inplace in {False, bool(in_place)}:
                for extension in self.extensions:
                    Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAllOrNone})
