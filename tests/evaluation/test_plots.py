import matplotlib.image
import torch

from melastic.evaluation.evaluate import Outputs
from melastic.evaluation.plots import plot_confusion, plot_curves

HELD_OUT = {"loss": 2.1, "accuracy": 0.2, "mAP": 0.3}
ROWS = [
    {"step": 2, "epoch": 1, "loss": 2.0, "lr": 1e-3, "val": HELD_OUT},
    {"step": 4, "epoch": 2, "loss": 1.0, "lr": 5e-4},
    {"step": 4, "epoch": 2, "test": {"accuracy": 0.5}},
]


def is_drawn(path):
    image = matplotlib.image.imread(path)
    return image.shape[0] > 300 and image.shape[1] > 300 and image.std() > 0.05


def test_curves_are_drawn_with_and_without_held_out_clips(tmp_path):
    plot_curves(ROWS, tmp_path / "curves.png")
    plot_curves(ROWS[1:], tmp_path / "plain.png")
    plot_curves([], tmp_path / "nothing.png")
    assert is_drawn(tmp_path / "curves.png")
    assert is_drawn(tmp_path / "plain.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "plain.png"]


def test_confusion_is_drawn_for_few_and_for_many_classes(tmp_path):
    for classes in (3, 40):
        targets = torch.eye(classes).repeat(3, 1)
        outputs = Outputs(torch.randn(3 * classes, classes), targets, (1,) * 3 * classes)
        labels = tuple(f"class {i}" for i in range(classes))
        plot_confusion(outputs, labels, tmp_path / f"{classes}.png")
        assert is_drawn(tmp_path / f"{classes}.png")


def test_a_dollar_in_a_label_begins_no_formula(tmp_path):
    logits = torch.eye(2)
    outputs = Outputs(logits, logits, (3, 3), ())
    plot_confusion(outputs, (r"$\foo$", "$5"), tmp_path / "confusion.png")
    assert is_drawn(tmp_path / "confusion.png")
