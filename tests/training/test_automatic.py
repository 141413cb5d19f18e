"""Phases that end by themselves: the rule, the budget, and runs that are stopped."""

import json
import math
from dataclasses import replace

import pytest

from melastic.errors import InputError
from melastic.training.automatic import most_epochs, moves_on, said, shares
from melastic.training.coarse_to_fine import phase_config, phases_of, train
from melastic.training.course import epochs_in
from melastic.training.loop import Trainer
from melastic.training.phases import Passing, phase_of, phases_in
from tests.training.test_resume import same, settings, weights


def rows_of(losses, every=1):
    return [
        {"epoch": i, "loss": 9.0, **({"val": {"loss": loss}} if i % every == 0 else {})}
        for i, loss in enumerate(losses, 1)
    ]


def epochs_until(loss, price, most=400):
    """The epoch after which a phase with this curve ends."""
    rows = rows_of([loss(epoch) for epoch in range(1, most)])
    return next((n for n in range(1, most) if moves_on(rows[:n], price)), None)


def test_a_share_is_what_an_epoch_takes_away_from_what_is_left():
    assert shares(rows_of([8.0, 4.0, 2.0, 1.0])) == pytest.approx([0.5, 0.5])
    assert shares(rows_of([8.0, 8.0, 2.0])) == pytest.approx([0.5])
    assert shares(rows_of([8.0, 4.0, 2.0, 1.0, 0.5, 0.25], every=3)) == pytest.approx([0.5])
    assert shares([]) == shares(rows_of([1.0, 0.5])) == []


def test_without_held_out_clips_the_training_loss_counts():
    rows = [{"epoch": i, "loss": 2.0**-i} for i in range(4)]
    assert shares(rows) == pytest.approx([0.5, 0.5])


def test_a_phase_goes_on_while_every_epoch_takes_the_same_share():
    assert epochs_until(lambda epoch: 0.8**epoch, 0.99, most=100) is None


@pytest.mark.parametrize("price", [0.1, 0.25, 0.5, 0.9])
def test_a_phase_ends_where_the_shares_of_a_known_curve_say_so(price):
    def loss(epoch):
        return 1 + 2 * math.exp(-epoch / 6)

    def share(epoch):
        return 1 - math.sqrt(loss(epoch) / loss(epoch - 2))

    wanted = next(n for n in range(4, 400) if share(n) <= price * share(3))
    assert epochs_until(loss, price) == wanted


def test_the_cheaper_a_phase_is_the_longer_it_lasts():
    lasts = [epochs_until(lambda epoch: 0.5 + 1 / epoch, price) for price in (0.1, 0.25, 0.5, 0.9)]
    assert lasts == sorted(lasts, reverse=True)
    assert len(set(lasts)) == 4


def test_a_loss_that_stands_or_rises_ends_a_phase():
    assert moves_on(rows_of([1.0, 1.0, 1.0]), 0.5)
    assert moves_on(rows_of([1.0, 0.5, 0.3, 0.4, 0.5]), 0.5)
    assert not moves_on(rows_of([1.0, 0.5]), 0.5)
    assert "at best" in said(rows_of([1.0, 1.0, 1.0]), 0.5, 3)
    assert "used up" in said(rows_of([1.0, 0.5, 0.2]), 0.5, 3)
    assert "run.patience" in said(rows_of([1.0, 0.5, 0.2]), 0.5, 4)


@pytest.mark.parametrize("words", ["3-phase:auto", "gradual-mean:auto"])
def test_phases_together_have_the_epochs_of_the_budget_however_long_each_lasts(words):
    phases, budget = phases_in(words), 30
    prices = [1.0] * len(phases)
    for share in (0.0, 0.3, 1.0):
        done = []
        for number in range(len(phases)):
            most = most_epochs(phases, done, prices, budget)
            last = number == len(phases) - 1
            done.append(most if last else max(1, round(share * most)))
        assert sum(done) == budget
        assert done[-1] >= budget // len(phases)


def test_a_budget_of_operations_is_never_overdrawn():
    phases, prices = phases_in("3-phase:auto"), [0.26, 0.51, 1.0]
    done = []
    for _ in phases:
        done.append(most_epochs(phases, done, prices, 30))
    spent = sum(n * price for n, price in zip(done, prices, strict=True))
    assert 29 < spent <= 30
    assert sum(done) > 30


def test_a_number_of_epochs_beside_auto_phases_is_kept():
    phases = tuple(map(phase_of, ("hop4:auto", "hop2:7", "full:auto")))
    assert most_epochs(phases, [], [1.0] * 3, 30) == 13
    assert most_epochs(phases, [4], [1.0] * 3, 30) == 7
    assert most_epochs(phases, [4, 7], [1.0] * 3, 30) == 19


def test_only_a_phase_with_an_unknown_end_keeps_its_learning_rate(tones):
    config = replace(settings(tones, epochs=9), phases=phases_in("3-phase:auto"))
    parts = [phase_config(config, i, [2, 2][:i]) for i in range(3)]
    assert [part.optim.schedule for part in parts] == ["constant", "constant", "cosine"]
    assert [part.optim.epochs for part in parts] == [5, 4, 5]
    costly = replace(config, passing=Passing(budget="gmacs"))
    assert phase_config(costly, 2, [2, 2]).optim.epochs == 7, "9 less 2 quarters and 2 halves"
    one = replace(config, passing=Passing(schedule="continued"))
    parts = [phase_config(one, i, [2, 2][:i]).optim for i in range(3)]
    assert {part.schedule for part in parts} == {"cosine"}
    assert [part.span[0] for part in parts] == pytest.approx([0, 2 / 9, 4 / 9])
    assert parts[2].span[1] == 1
    slopes = [(part.span[1] - part.span[0]) / part.epochs for part in parts]
    assert slopes == pytest.approx([1 / 9] * 3)


WRONG = {
    "hop2:auto full": "all auto or all equal",
    "hop2:auto hop2:auto": "coarser than the next",
    "full:auto hop2:auto": "coarser than the next",
    "gradual": "need 5 epochs or more",
    "hop2:3 full:auto": "need 4 epochs or more",
}


@pytest.mark.parametrize("text", WRONG)
def test_phases_that_cannot_share_the_epochs_are_refused(tones, text):
    phases = tuple(phase for word in text.split() for phase in phases_in(word))
    with pytest.raises(InputError, match=WRONG[text]) as caught:
        replace(settings(tones, epochs=3), phases=phases)
    assert "\n" not in str(caught.value)


def test_an_auto_run_that_is_stopped_anywhere_resumes_to_the_same_decisions_and_weights(
    tones, tmp_path, monkeypatch
):
    config = settings(tones, epochs=20, lr=1e-2, batch_tokens=30)
    config = replace(config, phases=tuple(map(phase_of, ("hop2:auto", "full:auto"))))
    train(config, tmp_path / "whole")
    ledger = json.loads((tmp_path / "whole" / "ledger.json").read_text())
    lengths = [row["epochs"] for row in ledger["phases"]]
    assert sum(lengths) == 20
    assert 3 <= lengths[0] < 10, "the rule has ended the first phase, not the budget"
    step, steps = Trainer._step, sum(len_of(tmp_path / "whole", name) for name in ("phase-1", "."))
    for stop in (1, len_of(tmp_path / "whole", "phase-1"), steps - 1):
        folder, count = tmp_path / f"stopped{stop}", 0

        def stopping(self, *args, stop=stop):
            nonlocal count
            count += 1
            if count > stop:
                raise KeyboardInterrupt
            return step(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_step", stopping)
            with pytest.raises(KeyboardInterrupt):
                train(config, folder)
        train(config, folder, resume=True)
        assert epochs_in(folder / "phase-1") == lengths[0]
        assert same(weights(folder), weights(tmp_path / "whole"))
        assert [own.optim.epochs for own, _ in phases_of(config, folder)][1] == lengths[1]
    begun = []
    make = Trainer.__init__

    def noting(self, config, folder, *args, **kwargs):
        begun.append(folder.name)
        make(self, config, folder, *args, **kwargs)

    monkeypatch.setattr(Trainer, "__init__", noting)
    train(config, folder, resume=True)
    assert begun == [folder.name], "a phase that has ended is not carried out again"


def len_of(folder, name):
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["step"]
