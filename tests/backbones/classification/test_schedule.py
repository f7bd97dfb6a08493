import json

import pytest
from torch import nn

from backbones.classification.schedule import LearningRate, Schedule


def test_the_papers_steps_for_cifar():
    rate = LearningRate(Schedule(milestones=(32000, 48000), patience=None))
    steps = (0, 31999, 32000, 47999, 48000, 63999)
    assert [rate.at(step) for step in steps] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_a_plateau():
    rate = LearningRate(Schedule(patience=2))
    found = []
    for error in (50, 40, 41, 40, 40, 39, 39.5, 39, 38):
        rate.validated(error)
        found.append(rate.at(0))
    # 41 and 40 are no better than 40; 40 starts anew; 39 is; 39.5 and 39 are not.
    expected = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001]
    assert found == pytest.approx(expected)


def test_the_warm_up_ends_when_the_error_drops():
    rate = LearningRate(Schedule(warmup_lr=0.01, milestones=(32000,)))
    for _ in range(300):
        rate.trained(89)
    assert rate.at(300) == 0.01
    updates = 0
    while rate.at(300 + updates) == 0.01:
        rate.trained(70)
        updates += 1
    # 70 + 19 · 0.98ⁿ < 80 from n = ln(19 / 10) / -ln(0.98) = 31.8 on; 300 updates left 0.03 of 100.
    assert updates == 32
    assert rate.at(400) == 0.1
    rate.trained(100)
    for _ in range(300):
        rate.trained(100)
    assert rate.at(700) == 0.1  # it does not come back


def test_one_good_batch_does_not_end_it():
    rate = LearningRate(Schedule(warmup_lr=0.01))
    rate.trained(0)
    assert rate.at(1) == 0.01


def test_the_state_is_plain_and_goes_on():
    schedule = Schedule(patience=3, warmup_lr=0.01)
    one, other = LearningRate(schedule), LearningRate(schedule)
    for error in (50, 60, 70):
        one.trained(20)
        one.validated(error)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other == one
    one.validated(80)
    assert other != one
    other.validated(80)
    assert other == one
    with pytest.raises(ValueError, match=r"expected .*'best'"):
        other.load_state_dict({"best": 3.0})


def test_the_optimizer_decays_all_and_leaves_out_what_is_frozen():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    network[0].requires_grad_(False)
    (group,) = Schedule().optimizer(network).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 0.0001)
    assert [id(one) for one in group["params"]] == [id(one) for one in network[1].parameters()]


@pytest.mark.parametrize("options", [{"lr": 0}, {"gamma": -1}, {"warmup_lr": 0}, {"patience": 0}])
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="above 0"):
        Schedule(**options)
