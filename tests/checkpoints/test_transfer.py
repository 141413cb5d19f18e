"""Weights carried over to a model with another patch size, grid, length or head."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

import melastic
from melastic.checkpoints.transfer import dropped, transfer
from melastic.classifier import Classifier
from melastic.config import KernelResize, Level, MeanPooling
from melastic.errors import InputError
from tests.models import COMBINATIONS, MELS, small, windows


@pytest.mark.parametrize(("pooling", "patch", "positions"), COMBINATIONS)
def test_an_equal_model_gives_the_same_logits(pooling, patch, positions):
    trained, new = small(pooling, patch, positions), small(pooling, patch, positions)
    clips = [torch.randn(MELS, 50), torch.randn(MELS, 17)]
    assert not torch.allclose(trained(clips), new(clips))
    assert transfer(trained, new) == []
    torch.testing.assert_close(new(clips), trained(clips))


def test_parts_that_a_new_model_has_no_place_for_are_named():
    trained, new = small("class"), small("mean")
    assert dropped(trained, trained) == []
    assert dropped(trained, new) == ["class_tokens"]
    assert dropped(new, trained) == []


@pytest.mark.parametrize("size", [8, 32, (16, 4)])
def test_a_model_with_another_patch_size_does_what_the_trained_one_does_at_that_size(size):
    trained = small(input_size=(MELS, 64))
    new = small(patch=(size, None), input_size=(MELS, 64))
    transfer(trained, new)
    clips = [torch.randn(MELS, 64)]
    torch.testing.assert_close(new(clips), trained(clips, size), atol=1e-5, rtol=1e-5)


def test_the_papers_way_from_patches_of_8_to_a_kernel_of_16():
    trained = small(patch=(8, None), input_size=(MELS, 128))
    new = small(patch=(16, None), input_size=(MELS, 128), reading="stretch")
    transfer(trained, new)
    table = trained.positions.table.permute(2, 0, 1)[None].contiguous()
    reduced = interpolate(table, (2, 8), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    torch.testing.assert_close(new.positions.table, reduced, atol=1e-6, rtol=1e-5)
    patch = torch.randn(1, 1, 8, 8)
    enlarged = interpolate(patch, (16, 16), mode="bilinear")[0, 0]
    answers = torch.einsum("dft,ft->d", trained.patch_embed.kernel, patch[0, 0])
    again = torch.einsum("dft,ft->d", new.patch_embed.kernel, enlarged)
    torch.testing.assert_close(again, answers, atol=1e-4, rtol=1e-4)


def test_a_longer_table_has_the_trained_positions_stretched_over_it():
    trained, new = small(input_size=(MELS, 64)), small(input_size=(MELS, 128))
    transfer(trained, new)
    table = trained.positions.table.permute(2, 0, 1)[None].contiguous()
    stretched = interpolate(table, (2, 8), mode="bilinear")[0].permute(1, 2, 0)
    torch.testing.assert_close(new.positions.table, stretched, atol=1e-6, rtol=1e-5)


def test_a_table_of_rows_and_columns_becomes_a_full_one_and_keeps_the_logits():
    trained, new = small(positions="factorised"), small(positions="learned")
    transfer(trained, new)
    clips = [torch.randn(MELS, 50)]
    torch.testing.assert_close(new(clips), trained(clips))


def test_rows_and_columns_are_the_means_of_a_full_table_and_count_the_mean_once():
    trained, new = small(positions="learned"), small(positions="factorised")
    transfer(trained, new)
    table = trained.positions.table
    sums = new.positions.freq[:, None] + new.positions.time
    expected = table.mean(1, keepdim=True) + table.mean(0) - table.mean((0, 1))
    torch.testing.assert_close(sums, expected)


def test_another_pooling_and_other_labels_stay_random_and_are_named():
    trained, new = small("class"), small("attention", labels=tuple("abcde"))
    before = {name: value.clone() for name, value in new.state_dict().items()}
    assert transfer(trained, new) == ["head", "pool"]
    after = new.state_dict()
    for name, value in before.items():
        kept = name.startswith(("head", "pool"))
        constant = value.flatten().std() == 0 if value.numel() > 1 else True
        assert torch.equal(after[name], value) == kept or constant, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 48}, "equal encoders"),
        ({"input_size": (64, 60)}, "num_mels is 32 in the trained model and 64"),
        ({"sample_rate": 8000}, "sample_rate is 16000 in the trained model and 8000"),
        ({"level": Level()}, "level is None in the trained model"),
        ({"mean": -7.0}, "mean is -4.2"),
    ],
)
def test_models_that_cannot_share_weights_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        transfer(small(), small(**change))


def test_the_rule_of_resizing_is_the_new_models():
    rule = KernelResize(antialias=True)
    trained, new = small(), small(patch=(8, None), resize=rule)
    other = small(patch=(8, None))
    transfer(trained, new)
    transfer(trained, other)
    assert not torch.allclose(new.patch_embed.kernel, other.patch_embed.kernel)


@pytest.mark.parametrize("leading", [0, 2])
def test_a_run_starts_from_a_trained_model(tones, tmp_path, leading):
    """Tokens that lead a clip without being pooled, as SSAST's do, come along."""
    from accelerate import Accelerator

    from melastic.training.coarse_to_fine import train
    from melastic.training.loop import Trainer
    from tests.training.test_resume import settings

    base = settings(tones, epochs=1)
    train(base, tmp_path / "first")
    made = melastic.load(tmp_path / "first")
    trained = Classifier(replace(made.config, pooling=MeanPooling(leading=leading)))
    trained.load_state_dict(made.state_dict(), strict=False)
    trained.save(tmp_path / "led")
    model = replace(base.model, init=str(tmp_path / "led"))
    run = Trainer(replace(base, model=model), tmp_path / "second", Accelerator(cpu=True))
    assert run.model.config == trained.config
    clip = [torch.randn(128, 40)]
    torch.testing.assert_close(run.model(clip), trained(clip))


@pytest.mark.parametrize("rows", [(4, 8), (8, 4), (4, 4)])
def test_a_token_semantic_head_is_fitted_to_other_rows(rows):
    there, here = (windows(patch=(height, 4), depths=(1, 1)) for height in rows)
    assert transfer(there, here) == []
    steps = torch.randn(3, there.config.encoder.dim)
    logits = []
    for model in (there, here):
        alike = torch.stack([steps] * model.config.pooling.rows, dim=-1)
        vector = torch.stack([alike] * 3, dim=-1).flatten(1)
        logits.append(model.head(vector))
    torch.testing.assert_close(*logits)


def test_a_part_is_taken_over_whole_or_not_at_all():
    source = small("mean")
    other = Classifier(replace(source.config, labels=("a", "b", "c", "d", "f")))
    before = {name: value.clone() for name, value in other.head.state_dict().items()}
    assert "head" in transfer(source, other)
    assert all(torch.equal(other.head.state_dict()[name], value) for name, value in before.items())
