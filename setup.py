"""Builds the CPU kernels along with the package; without a compiler the package still installs."""

import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("src", "melastic", "native")
builder = runpy.run_path(str(SOURCES / "build.py"))


class BuildKernels(build_ext):
    """One plain shared library instead of a Python extension."""

    def build_extension(self, ext: Extension) -> None:
        """Compile; a failure is said and does not stop the installation."""
        try:
            builder["build"](Path(self.get_ext_fullpath(ext.name)))
        except builder["BuildError"] as error:
            sys.stderr.write(f"melastic: no CPU kernels ({error}); slower code serves instead\n")

    def get_ext_filename(self, fullname: str) -> str:
        """The library's name, which tells nothing of a Python version."""
        return str(Path(*fullname.split(".")[:-1], builder["NAME"]))

    def copy_extensions_to_source(self) -> None:
        """In an editable installation the library lies beside its sources."""
        try:
            builder["build"]((SOURCES / builder["NAME"]).absolute())
        except builder["BuildError"] as error:
            sys.stderr.write(f"melastic: no CPU kernels ({error}); slower code serves instead\n")


class PlatformWheel(bdist_wheel):
    """The library needs a platform, but no particular Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, no ABI, this platform."""
        return ("py3", "none", super().get_tag()[2])


setup(
    ext_modules=[Extension("melastic.native.kernels", sources=[], optional=True)],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
