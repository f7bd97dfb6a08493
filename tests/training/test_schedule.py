import pytest
import torch
from torch import nn

from detection.training.schedule import Schedule


def factors(schedule: Schedule, total: int) -> list[float]:
    return [schedule.factor(step, total) for step in range(total)]


def test_milestones_as_updates():
    schedule = Schedule(milestones=(2, 5), gamma=0.1)
    assert factors(schedule, 7) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_milestones_as_fractions():
    schedule = Schedule(milestones=(0.7, 0.9), gamma=0.5)
    assert factors(schedule, 10) == [1] * 7 + [0.5] * 2 + [0.25]
    assert schedule.factor(699, 1000) == 1
    assert schedule.factor(700, 1000) == 0.5


def test_the_paper_drops_after_50k_of_70k():
    assert Schedule().factor(49_999, 70_000) == 1
    assert Schedule().factor(50_000, 70_000) == pytest.approx(0.1)


def test_milestones_of_both_kinds():
    assert factors(Schedule(milestones=(0.5, 3), gamma=0.5), 4) == [1, 1, 0.5, 0.25]


def test_warm_up_grows_from_its_factor_to_one():
    schedule = Schedule(milestones=(), warmup_steps=4, warmup_factor=0.2)
    assert factors(schedule, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_a_warm_up_as_a_fraction():
    schedule = Schedule(milestones=(), warmup_steps=0.5, warmup_factor=0.2)
    assert factors(schedule, 8) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    assert schedule.warmup(100) == 50
    assert Schedule(warmup_steps=500).warmup(100) == 500


def test_a_milestone_within_the_warm_up():
    schedule = Schedule(milestones=(2,), gamma=0.1, warmup_steps=4, warmup_factor=0.2)
    assert factors(schedule, 5) == pytest.approx([0.2, 0.4, 0.06, 0.08, 0.1])


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Conv2d(3, 2, 1)
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.linear = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)


def test_parameter_groups():
    network = Network()
    schedule = Schedule(0.008, momentum=0.8, weight_decay=0.01, bias_lr_factor=3.0)
    optimizer = schedule.optimizer(network, 4)
    setting = {
        id(parameter): (group["lr"], group["weight_decay"], group["momentum"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    weight, norm, bias = (0.002, 0.01, 0.8), (0.002, 0.0, 0.8), (0.006, 0.0, 0.8)
    assert setting == {
        id(network.conv.weight): pytest.approx(weight),
        id(network.linear.weight): pytest.approx(weight),
        id(network.norm.weight): pytest.approx(norm),
        id(network.conv.bias): pytest.approx(bias),
        id(network.norm.bias): pytest.approx(bias),
        id(network.linear.bias): pytest.approx(bias),
    }


def test_a_network_without_norms():
    network = nn.Linear(2, 2)
    weights, biases = Schedule().optimizer(network, 16).param_groups
    assert weights["params"][0] is network.weight
    assert biases["params"][0] is network.bias


@pytest.mark.parametrize(("images", "lr"), [(2, 0.001), (16, 0.008), (64, 0.032)])
def test_the_rate_is_scaled_to_the_images_of_an_update(images: int, lr: float):
    optimizer = Schedule(0.008).optimizer(nn.Linear(2, 2, bias=False), images)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)


def test_the_scheduler_multiplies_each_group():
    network = Network()
    schedule = Schedule(0.016, bias_lr_factor=2.0, milestones=(0.5,), gamma=0.1, warmup_steps=1)
    optimizer = schedule.optimizer(network, 16)
    scheduler = schedule.scheduler(optimizer, 4)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    full = torch.tensor([0.016, 0.016, 0.032])
    expected = torch.tensor([0.001, 1, 0.1, 0.1])[:, None] * full
    torch.testing.assert_close(torch.tensor(rates), expected)
