"""Compile the kernels: ``python -m melastic.native.build``. Installation calls it too.

Nothing of Python or torch is linked, so that one library serves every version of both. On x86-64
the kernels are compiled for three instruction sets, of which the best is chosen at run time.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
NAME = "libmelastic.dylib" if sys.platform == "darwin" else "libmelastic.so"
SOURCES = ("*.h", "*.cpp")
FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-w"),
)
THREADS = () if sys.platform == "darwin" else ("-fopenmp",)
"""On macOS the system's own queues serve."""
X86 = {
    "baseline": ("-march=x86-64-v2",),
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}
"""Flags of each instruction set."""


class BuildError(RuntimeError):
    """The kernels could not be compiled."""


def fingerprint() -> str:
    """Fingerprint of the sources."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in FOLDER.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(target: Path | None = None) -> Path:
    """Compile and link the kernels; an older library is replaced once the new one is complete.

    Args:
        target: the library; None: beside the sources, where the package looks for it.

    Raises:
        BuildError: if there is no compiler, or it fails; its message says so in one line.
    """
    target = FOLDER / NAME if target is None else target
    compiler = _compiler()
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = _compile(compiler, Path(folder), THREADS)
        except BuildError:
            if not THREADS:
                raise
            library = _compile(compiler, Path(folder), ())  # a compiler without OpenMP
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, part)
        part.replace(target)
    return target


def _compile(compiler: Sequence[str], folder: Path, threads: Sequence[str]) -> Path:
    """The library, in a folder of temporary files.

    Args:
        compiler: command and its options.
        folder: for objects and the library.
        threads: flags that let kernels use several threads.

    Raises:
        BuildError: if the compiler fails.
    """
    sets = X86 if platform.machine().lower() in ("x86_64", "amd64") else {"baseline": ()}
    stamp = f'-DMELASTIC_SOURCES="{fingerprint()}"'
    jobs = [("entry", "entry.cpp", (*sets["baseline"], stamp))]
    jobs += [
        (name, "kernels.cpp", (*flags, f"-DMELASTIC_ISA={name}")) for name, flags in sets.items()
    ]
    objects = [str(folder / f"{name}.o") for name, _, _ in jobs]
    for (_, source, flags), target in zip(jobs, objects, strict=True):
        words = [*compiler, *FLAGS, *threads, *flags, "-c", str(FOLDER / source), "-o", target]
        _run(words)
    _run([*compiler, "-shared", *threads, *objects, "-o", str(folder / NAME)])
    return folder / NAME


def _compiler() -> list[str]:
    """The C++ compiler and its options, from the environment or the path.

    Raises:
        BuildError: if there is none.
    """
    named = os.environ.get("CXX")
    for words in [shlex.split(named)] if named else [["c++"], ["g++"], ["clang++"]]:
        if words and shutil.which(words[0]):
            return words
    raise BuildError(f"no C++ compiler found ({named or 'c++, g++, clang++'}); install one")


def _run(command: Sequence[str]) -> None:
    """Run a command.

    Raises:
        BuildError: with the last line that it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in said if "error" in line] or said[-1:] or ["no message"]
        raise BuildError(f"{command[0]} failed: {errors[0]}")


def main() -> int:
    """Build and say where the library is."""
    try:
        path = build()
    except BuildError as error:
        sys.stderr.write(f"melastic kernels: {error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
