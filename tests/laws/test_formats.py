"""Number formats and tracing: what must hold whatever was used before or around a model."""

import pytest
import torch

import melastic
from melastic.errors import InputError
from melastic.frontend.config import SlaneyMel
from melastic.frontend.fbank import frame_sizes
from melastic.frontend.slaney import slaney_log_mel
from melastic.patches.batch import Layout
from melastic.scan.selective import scan_kernel
from tests.models import MELS, mamba, small, windows

KINDS = {
    "transformer": lambda: small("class"),
    "by attention": lambda: small("attention", positions="factorised"),
    "mamba": lambda: mamba(),
    "both ways": lambda: mamba("bi-bi", pooling="mean"),
    "windows": lambda: windows(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_in_another_format_reads_spectrograms_and_recordings(kind, dtype):
    torch.manual_seed(0)
    model, waveform = KINDS[kind]().eval(), 0.1 * torch.randn(12_000)
    clip = model.spectrogram(waveform)
    expected = model([clip]).detach()
    scores = dict(model.classify(waveform))
    model.to(dtype)
    assert model.spectrogram(waveform).dtype == dtype
    found = model([clip.to(dtype)]).detach()
    assert found.dtype == dtype
    near = 1e-4 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(found.to(clip), expected, atol=near, rtol=0)
    for label, score in model.classify(waveform):
        assert score == pytest.approx(scores[label], abs=near)


def test_finite_spectrograms_are_taken_even_where_their_sum_is_beyond_the_format():
    clip = torch.full((MELS, 4000), 1.5, dtype=torch.float16)
    assert torch.isinf(clip.sum())
    model = small("mean").half()
    assert model([clip]).isfinite().all()
    clip[3, 7] = torch.nan
    with pytest.raises(melastic.InputError, match="finite"):
        model([clip])


@pytest.mark.parametrize("kernel", ["best", "chunked"])
def test_gradients_of_a_scan_do_not_depend_on_the_usual_format(kernel):
    torch.manual_seed(0)
    u, delta, B, C = (torch.randn(2, n, 40, requires_grad=True) for n in (6, 6, 4, 4))
    A = (-torch.rand(6, 4)).requires_grad_()
    D, bias = (torch.randn(6, requires_grad=True) for _ in range(2))

    def gradients():
        with scan_kernel(kernel):
            y = melastic.selective_scan(u, delta, A, B, C, D, None, bias, True)
        return torch.autograd.grad(y.square().sum(), (u, delta, A, B, C, D, bias))

    expected = gradients()
    torch.set_default_dtype(torch.float64)
    try:
        found = gradients()
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_log_mels_can_be_trained_through_after_they_were_only_read():
    sizes, waveform = {"num_mels": 61, "window_ms": 21.0}, torch.randn(4000)
    with torch.inference_mode():
        melastic.log_mel(waveform, **sizes)
    waveform.requires_grad_()
    melastic.log_mel(waveform, **sizes).sum().backward()
    assert waveform.grad.isfinite().all()


def test_log_mels_are_exact_where_matrix_products_are_not():
    waveform, slaney = 0.3 * torch.randn(8000), SlaneyMel(low_hz=50, high_hz=8000)
    sizes = {"sample_rate": 16_000, "hop_ms": 10.0, "window_ms": 25.0, "num_mels": 64}
    for compute in (melastic.log_mel, lambda w, **k: slaney_log_mel(w, config=slaney, **k)):
        expected = compute(waveform, **sizes)
        with torch.autocast("cpu", torch.bfloat16):
            found = compute(waveform, **sizes)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_the_stream_that_blocks_add_to_stays_exact_where_matrix_products_are_not():
    model, seen = small("mean").eval(), []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model([torch.randn(MELS, 40)])
    assert seen == [torch.float32] * 2


def test_piece_by_piece_equals_all_at_once_where_matrix_products_are_not_exact():
    torch.manual_seed(0)
    encoder, x = mamba("fo-fo", class_token="last").encoder.eval(), torch.randn(12, 24).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = encoder(x, Layout((12,)))
        first, carried = encoder.advance(x[:5])
        second, _ = encoder.advance(x[5:], carried)
    torch.testing.assert_close(torch.cat([first, second]), whole, atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", ["transformer", "mamba", "windows"])
def test_a_model_can_be_traced_and_is_unharmed_by_it(kind):
    model, clips = KINDS[kind]().eval(), torch.randn(2, MELS, 52)
    traced = torch.export.export(model, (clips,), strict=False).module()
    found = model(clips)
    assert type(found) is torch.Tensor
    torch.testing.assert_close(traced(clips), found, atol=1e-5, rtol=0)


def test_a_format_that_autocast_leaves_alone_is_refused_there_too():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="use spectrogram"):
        small("mean")([torch.randn(MELS, 40, dtype=torch.float64)])


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_a_whole_number_of_samples_is_that_many_however_milliseconds_are_rounded(rate):
    for hop in range(1, 2049):
        for hop_ms in (hop / rate * 1000, hop * 1000 / rate):
            assert frame_sizes(rate, hop_ms=hop_ms, window_ms=25.0)[1] == hop


def test_a_free_length_is_refused_where_a_model_is_exported():
    from torch.export import Dim, export

    model, clips = small("mean").eval(), torch.randn(1, MELS, 40)
    assert torch.equal(export(model, (clips,), strict=False).module()(clips), model(clips))
    with pytest.raises(InputError, match="leave dynamic_shapes out"):
        export(model, (clips,), dynamic_shapes=({2: Dim.AUTO},), strict=False)
