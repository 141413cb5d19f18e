"""What the official maths say of a converted Audio Mamba."""

import pytest
import torch

import melastic
from melastic.checkpoints.convert import facts_of
from melastic.checkpoints.convert.parity import compare
from melastic.checkpoints.convert.report import convert
from tests.models import VARIANTS
from tests.oracles.aum import LEARNED, aum_state, vim_state

FACTS = {"input_size": (32, 64)}


@pytest.mark.parametrize("place", LEARNED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_conversion_is_compared_at_several_patch_sizes(variant, place):
    state = aum_state(variant, place, depth=1)
    state = {f"module.{name}": value for name, value in state.items()}
    said = FACTS | ({"class_token": place} if place in ("first", "last") else {})
    model = melastic.from_official(state, origin="aum", **said)
    found = compare(model, {"model": state}, "aum")
    assert [one.input for one in found] == [
        "32 x 64, 2 clips",
        "32 x 64, patch 32 x 32",
        "32 x 64, patch 8 x 8",
        "32 x 64, patch 16 x 32",
        "32 x 64, patch 12 x 20",
    ]
    assert all(one.difference < 2e-5 and one.passed for one in found)


def test_patches_that_overlap_keep_their_share_of_the_stride():
    state = aum_state(grid=(3, 6), patch=(8, 8), depth=1)
    model = melastic.from_official(state, origin="aum", input_size=(18, 33), stride=5)
    found = compare(model, state, "aum")
    assert "18 x 33, patch 16 x 16" in [one.input for one in found]
    assert all(one.difference < 2e-5 for one in found)


@pytest.mark.parametrize(("variant", "place"), [("fo-bi", "middle"), ("bi-bi", "both")])
def test_every_parameter_that_is_wrong_is_found(variant, place):
    state = aum_state(variant, place, depth=1)
    model = melastic.from_official(state, origin="aum", **FACTS)
    for name, parameter in model.named_parameters():
        right = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
        assert not all(one.passed for one in compare(model, state, "aum")), name
        parameter.data = right
    assert all(one.passed for one in compare(model, state, "aum"))


@pytest.mark.parametrize(
    ("variant", "true", "false"), [("fo-bi", "last", "middle"), ("bi-bi", "middle", "first")]
)
def test_a_class_token_that_is_said_to_stand_elsewhere_changes_the_logits(variant, true, false):
    state, clip = aum_state(variant), [torch.randn(32, 64)]
    models = [
        melastic.from_official(state, origin="aum", class_token=place, **FACTS)
        for place in (true, false)
    ]
    assert not torch.allclose(models[0](clip), models[1](clip), atol=1e-2)


def test_what_was_read_off_and_what_was_assumed_is_told_apart():
    def reported(place, **said):
        state, kind = aum_state("bi-bi", place, grid=(8, 2), depth=1), facts_of("aum")
        report = convert(state, "aum", kind(**said))[1]
        assert report.passed
        assert report.tensors == len(state)
        return report

    report = reported("middle")
    assert report.assumed["class_token"] == "middle"
    assert report.assumed["input_size"] == [128, 32]
    assert "class_token" not in report.read_off
    assert (report.read_off["variant"], report.read_off["state"]) == ("bi-bi", 16)
    assert (report.read_off["depth"], report.read_off["stride"]) == (1, [16, 16])
    assert reported("both").read_off["class_token"] == "both"
    report = reported("none", input_size=(128, 32))
    assert report.read_off["class_token"] == "none"
    assert report.given == {"input_size": (128, 32)}
    report = reported("last", class_token="last")
    assert report.given == {"class_token": "last"}
    assert not {"class_token"} & {*report.read_off, *report.assumed}


def test_a_start_from_images_has_nothing_to_be_compared_with():
    state = vim_state(depth=1)
    kind = facts_of("vim")
    report = convert(state, "vim", kind(input_size=(64, 64), num_classes=2))[1]
    assert report.comparisons == ()
    assert report.tensors + len(report.dropped) == len(state)
    assert set(report.dropped) == {"head.weight", "head.bias", "rope.freqs_cos", "rope.freqs_sin"}
    assert len(report.absorbed) == 3
