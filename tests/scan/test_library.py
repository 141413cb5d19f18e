"""Building and finding the compiled kernels."""

import shutil
import subprocess
import sys

import pytest

from melastic.native import build, library
from melastic.native.library import kernels


def loaded(path):
    return library._loaded(path)


def test_a_library_that_is_not_there_is_said_with_the_remedy(tmp_path):
    found = loaded(tmp_path / build.NAME)
    assert found.library is None
    assert "not built; with a C++ compiler: python -m melastic.native.build" in found.said
    assert found.instructions == "none"
    assert found.supported() == []


def test_a_file_that_is_no_library_is_said(tmp_path):
    (tmp_path / build.NAME).write_bytes(b"nothing")
    assert "cannot be loaded" in loaded(tmp_path / build.NAME).reason


@pytest.mark.skipif(kernels().library is None, reason=kernels().reason)
def test_a_library_of_other_sources_is_not_used(monkeypatch):
    monkeypatch.setattr(library, "fingerprint", lambda: "0" * 16)
    assert "built from other sources" in loaded(build.FOLDER / build.NAME).reason


@pytest.mark.skipif(kernels().library is None, reason=kernels().reason)
def test_a_library_of_another_version_is_not_used(monkeypatch):
    monkeypatch.setattr(library, "ABI", library.ABI + 1)
    assert "another version of the package" in loaded(build.FOLDER / build.NAME).reason


@pytest.mark.parametrize(
    ("choice", "said"), [("none", "=none"), ("avx9000", "no kernels for 'avx9000' here")]
)
def test_the_environment_chooses_the_instruction_set(choice, said):
    code = "from melastic.native.library import kernels; print(kernels().said)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={library.CHOICE: choice, "PATH": "/usr/bin"},
    )
    assert said in done.stdout, done.stderr


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_what_is_built_can_be_loaded(tmp_path):
    found = loaded(build.build(tmp_path / build.NAME))
    assert not found.reason
    assert found.instructions in found.supported()
    assert [path.name for path in tmp_path.iterdir()] == [build.NAME]


@pytest.mark.parametrize(
    ("compiler", "message"), [("no-such-compiler", "no C\\+\\+ compiler"), ("false", "failed")]
)
def test_without_a_compiler_the_build_says_so_in_one_line(monkeypatch, tmp_path, compiler, message):
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(build.BuildError, match=message) as caught:
        build.build(tmp_path / build.NAME)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
