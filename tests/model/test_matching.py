import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detection.model.matching import NEGATIVE, POSITIVE, UNUSED, Sampler, match
from detection.structures import Target


def strips(*spans: tuple[float, float]) -> torch.Tensor:
    """Boxes one pixel high, so that an IoU is a ratio of lengths."""
    boxes = [(start, 0, end, 1) for start, end in spans]
    return torch.tensor(boxes, dtype=torch.float64).view(-1, 4)


def target_of(boxes: torch.Tensor, ignore: list[bool] | None = None) -> Target:
    count = len(boxes)
    flags = torch.tensor(ignore or [False] * count, dtype=torch.bool)
    return Target(boxes, torch.arange(count) + 1, flags)


RPN = {"positive": 0.7, "negative": (0.0, 0.3), "keep_best": True}
ROI = {"positive": 0.5, "negative": (0.1, 0.5)}


@pytest.mark.parametrize(
    ("rule", "wanted"), [(RPN, NEGATIVE), (ROI, UNUSED), (ROI | {"negative": (0.0, 0.5)}, NEGATIVE)]
)
@pytest.mark.parametrize("ignored", [0, 1])
def test_no_objects(rule, wanted, ignored):
    # An ignored region far away is no object either.
    target = target_of(strips(*[(1000, 1010)] * ignored), [True] * ignored)
    roles, objects = match(strips((0, 10), (5, 15)), target, **rule)
    assert roles.tolist() == [wanted] * 2
    assert objects.tolist() == [0, 0]


def test_no_candidates():
    for boxes in (strips((0, 10)), strips((0, 10))[:0]):
        roles, objects = match(boxes[:0], target_of(boxes), **ROI)
        assert roles.shape == objects.shape == (0,)


def test_thresholds_belong_to_the_upper_role():
    # Against (0, 100), a strip (0, n) has IoU n / 100.
    candidates = strips((0, 100), (0, 50), (0, 49), (0, 25), (0, 24), (100, 200))
    target = target_of(strips((0, 100)))
    roles, _ = match(candidates, target, positive=0.5, negative=(0.25, 0.49))
    # 0.49 is between: neither positive nor in the half-open interval of negatives.
    assert roles.tolist() == [POSITIVE, POSITIVE, UNUSED, NEGATIVE, UNUSED, UNUSED]


def test_each_candidate_goes_with_its_best_object():
    candidates = strips((0, 10), (12, 20), (8, 13))
    target = target_of(strips((0, 10), (10, 20)))
    # The third overlaps the objects by 2 and by 3.
    assert match(candidates, target, **ROI).objects.tolist() == [0, 1, 1]


@pytest.mark.parametrize("keep_best", [True, False])
def test_the_best_candidates_of_an_object_are_positive_ties_included(keep_best):
    candidates = strips((0, 40), (60, 100), (0, 30), (200, 300))
    rule = RPN | {"keep_best": keep_best}
    roles, _ = match(candidates, target_of(strips((0, 100))), **rule)
    best = POSITIVE if keep_best else UNUSED
    assert roles.tolist() == [best, best, UNUSED, NEGATIVE]


def test_a_best_candidate_trains_for_the_object_it_overlaps_most():
    # The second object's best candidate overlaps the first one more (torchvision and Detectron).
    candidates = strips((0, 100))
    roles, objects = match(candidates, target_of(strips((0, 90), (90, 130))), **RPN)
    assert roles.tolist() == [POSITIVE]
    assert objects.tolist() == [0]


def test_an_object_nobody_touches_makes_nobody_positive():
    target = target_of(strips((500, 600)))
    roles, _ = match(strips((0, 10), (20, 30)), target, **RPN)
    assert roles.tolist() == [NEGATIVE, NEGATIVE]


def test_unusable_candidates_have_no_role_and_are_nobodys_best():
    candidates = strips((0, 100), (0, 40), (200, 300))
    usable = torch.tensor([False, True, True])
    roles, _ = match(candidates, target_of(strips((0, 100))), usable=usable, **RPN)
    assert roles.tolist() == [UNUSED, POSITIVE, NEGATIVE]
    roles, _ = match(candidates, target_of(strips()), usable=usable, **RPN)
    assert roles.tolist() == [UNUSED, NEGATIVE, NEGATIVE]


def test_negatives_in_an_ignored_region_do_not_train():
    objects = strips((200, 300), (0, 100))
    candidates = strips(
        (50, 60),  # inside of the region
        (93, 103),  # 0.7 inside
        (94, 104),  # 0.6 inside
        (0, 100),  # the region itself, which is no object
        (200, 300),  # the object
    )
    roles, found = match(candidates, target_of(objects, [False, True]), **RPN)
    assert roles.tolist() == [UNUSED, UNUSED, NEGATIVE, UNUSED, POSITIVE]
    assert found.tolist() == [0] * 5


def test_a_positive_in_an_ignored_region_stays_and_rows_count_ignored_objects():
    objects = strips((0, 1000), (100, 200), (300, 400))
    candidates = strips((100, 200), (300, 390))
    roles, found = match(candidates, target_of(objects, [True, False, False]), **RPN)
    assert roles.tolist() == [POSITIVE, POSITIVE]
    assert found.tolist() == [1, 2]


def test_each_ignored_region_counts_alone():
    # 0.5 in each of two regions: in neither to 0.7.
    regions = strips((0, 100), (110, 200), (300, 400))
    target = target_of(regions, [True, True, False])
    roles, _ = match(strips((95, 105), (95, 115)), target, ignore_overlap=0.5, **RPN)
    assert roles.tolist() == [UNUSED, NEGATIVE]


@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize(("high", "low"), [(0.7, 0.3), (0.5, 0.5)])
def test_equals_torchvision(high, low, keep_best):
    corners = torch.rand(2000, 2) * 200
    candidates = torch.cat((corners, corners + torch.rand(2000, 2) * 100 + 5), dim=1)
    # Objects near candidates, so that every role occurs.
    objects = candidates[:12] + torch.rand(12, 4) * 12
    roles, found = match(
        candidates, target_of(objects), positive=high, negative=(0.0, low), keep_best=keep_best
    )
    wanted = Matcher(high, low, allow_low_quality_matches=keep_best)(box_iou(objects, candidates))
    assert torch.equal(roles == POSITIVE, wanted >= 0)
    assert torch.equal(roles == NEGATIVE, wanted == Matcher.BELOW_LOW_THRESHOLD)
    assert torch.equal(roles == UNUSED, wanted == Matcher.BETWEEN_THRESHOLDS)
    assert torch.equal(found[wanted >= 0], wanted[wanted >= 0])
    assert len(set(roles.tolist())) == (2 if high == low else 3)


def roles_of(positives: int, negatives: int, unused: int) -> torch.Tensor:
    roles = [POSITIVE] * positives + [NEGATIVE] * negatives + [UNUSED] * unused
    return torch.tensor(roles, dtype=torch.int8)[torch.randperm(len(roles))]


@pytest.mark.parametrize(
    ("there", "drawn"),
    [
        ((0, 0, 0), (0, 0)),
        ((0, 0, 50), (0, 0)),
        ((500, 500, 10), (32, 96)),  # a quarter of 128
        ((5, 500, 10), (5, 123)),  # negatives fill the rest
        ((500, 50, 10), (32, 50)),  # positives do not
        ((3, 4, 10), (3, 4)),
        ((0, 500, 0), (0, 128)),
    ],
)
def test_the_sampler_draws_its_counts(there, drawn):
    roles = roles_of(*there)
    positives, negatives = Sampler(count=128, positive_fraction=0.25)(roles)
    assert (len(positives), len(negatives)) == drawn
    assert (roles[positives] == POSITIVE).all()
    assert (roles[negatives] == NEGATIVE).all()
    assert len(set(positives.tolist() + negatives.tolist())) == sum(drawn)


def test_the_sampler_draws_every_candidate_alike():
    roles = roles_of(20, 40, 5)
    sampler = Sampler(count=20, positive_fraction=0.5)
    drawn = torch.zeros(len(roles))
    for _ in range(2000):
        for rows in sampler(roles):
            drawn[rows] += 1
    # Expected 1000 of 2000 positives, 500 of 2000 negatives; 6 standard deviations are 134, 116.
    assert (drawn[roles == POSITIVE] - 1000).abs().max() < 134
    assert (drawn[roles == NEGATIVE] - 500).abs().max() < 116
    assert drawn[roles == UNUSED].sum() == 0
