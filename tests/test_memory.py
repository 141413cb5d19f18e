import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from melastic.memory import keep_freed_memory

def step():
    held = [torch.ones(800_000) for _ in range(8)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory()
for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_a_step_finds_the_memory_that_the_step_before_gave_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert int(done.stdout) < 100, "pages that ten steps asked the system for"
