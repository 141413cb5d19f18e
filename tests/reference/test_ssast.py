"""SSAST with timm 0.4.5: the numbers its own code gave, fine-tuned and from pre-training."""

import pytest
import torch
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.ssast import masked_model
from melastic.training.masks import Masking
from tests.oracles.fill import filled, spectrogram
from tests.reference.cases import cases

CASES = cases("ssast")
RELATIVE = {"atol": 0, "rtol": 1e-4}
POOLINGS = {"mean": "logits", "class": "logits_cls"}


def of_task(task):
    return [case for case in CASES if case.values[0]["task"] == task]


def converted(case, pooling, **facts):
    """The classifier of a case; its head is filled where the file holds none."""
    config = case["config"]
    facts |= {"input_size": (128, config["frames"]), "num_heads": config["num_heads"]}
    state = filled(case.get("shapes") or case["pretrain_shapes"], seed=case["seed"])
    stored = case.get("pretrain_not_filled", {})
    state |= {name: torch.tensor(value) for name, (_, value) in stored.items()}
    model = melastic.from_official(state, origin="ssast", pooling=pooling, **facts)
    head = filled(case.get("head_shapes", {}), seed=case["seed"])
    for name, value in head.items():
        ours = name.replace("mlp_head.0", "norm").replace("mlp_head.1", "linear")
        model.head.get_parameter(ours).data = value
    return model


def assert_official(model, case, pooling):
    with torch.no_grad():
        logits = model(spectrogram(case["frames"], 128, case["batch"]).transpose(1, 2))
    assert_close(logits, torch.tensor(case[POOLINGS[pooling]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("case", of_task("finetune"))
def test_a_fine_tuned_ssast_gives_the_official_logits(case, pooling):
    config = case["config"]
    model = converted(case, pooling)
    assert model.config.patches.patch == (config["fshape"], config["tshape"])
    assert model.config.patches.stride == (config["fstride"], config["tstride"])
    assert_official(model, case, pooling)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("case", of_task("transfer"))
def test_pre_training_becomes_the_official_start(case, pooling):
    config = case["config"]
    stride = (config["fstride"], config["tstride"])
    model = converted(case, pooling, stride=stride, num_classes=config["num_classes"])
    assert_official(model, case, pooling)
    table = model.positions.table.detach().flatten(0, 1)
    assert len(table) + 2 == case["pos_embed_shape"][1]
    norms = torch.tensor(case["pos_embed_norms"])
    assert_close(table.norm(dim=1), norms[2:], atol=1e-5, rtol=1e-5)


def test_a_start_without_more_facts_keeps_the_grid_of_pre_training():
    case = of_task("transfer")[0].values[0]
    state = filled(case["pretrain_shapes"], seed=case["seed"])
    state |= {"p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(1024)}
    model = melastic.from_official(state, origin="ssast", num_heads=3, labels=["a", "b"])
    table = model.positions.table.detach().flatten(0, 1)
    assert torch.equal(table, state["v.pos_embed"][0, 2:])
    assert model.config.frontend.fixed_frames == 1024
    assert model.labels == ("a", "b")
    assert model.head.linear.weight.std().item() == pytest.approx(0.02, rel=0.3)


def masked(case, over):
    """The model of a pre-training case, and what its input hides."""
    state = filled(case["shapes"], seed=case["seed"])
    state |= {name: torch.tensor(value) for name, (_, value) in case["not_filled"].items()}
    model = masked_model(state, Masking(over=over), num_heads=case["config"]["num_heads"])
    x = spectrogram(case["frames"], 128, case["batch"]).transpose(1, 2)
    return model, x, [torch.tensor(index) for index in case["mask_index"]]


@pytest.mark.parametrize("case", of_task("pretrain"))
def test_pre_training_has_the_official_losses(case):
    model, x, hidden = masked(case, "predictions")
    with torch.no_grad():
        found = model(x, hidden)
    assert_close(found.discriminative.mean().item(), case["discriminative_loss"], **RELATIVE)
    assert_close(found.generative.mean().item(), case["generative_mse"], **RELATIVE)
    assert_close(found.loss.mean().item(), case["joint_loss"], **RELATIVE)
    assert found.accuracy.mean().item() == pytest.approx(case["accuracy"], abs=1e-6)


@pytest.mark.parametrize("case", of_task("pretrain"))
def test_pre_training_has_the_losses_of_the_paper(case):
    model, x, hidden = masked(case, "patches")
    with torch.no_grad():
        found = model(x, hidden)
    paper = case["discriminative_loss_over_patches"]
    assert_close(found.discriminative.mean().item(), paper, **RELATIVE)
    right = case["accuracy_argmax_over_patches_of_raw_scores"]
    assert found.accuracy.mean().item() == pytest.approx(right, abs=1e-6)
