"""What importing and calling must leave alone."""

import subprocess
import sys

import torch

from tests.models import MELS, small


def test_a_forward_pass_leaves_the_random_state_alone():
    model, clips = small("attention"), [torch.randn(MELS, 40), torch.randn(MELS, 7)]
    before = torch.get_rng_state()
    model(clips)
    assert torch.equal(before, torch.get_rng_state())


def test_training_and_evaluation_mode_compute_the_same():
    model, clips = small("class"), [torch.randn(MELS, 40)]
    assert torch.equal(model.train()(clips), model.eval()(clips))


def test_a_forward_pass_prints_nothing(capfd):
    small()([torch.randn(MELS, 40)])
    assert capfd.readouterr() == ("", "")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, melastic; print({'torch', 'numpy', 'tyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert done.stderr == ""


def test_every_public_name_can_be_imported_and_says_what_it_is():
    import melastic

    for name in melastic.__all__:
        assert getattr(melastic, name).__doc__
