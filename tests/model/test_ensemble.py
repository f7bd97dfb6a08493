import math

import pytest
import torch

from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.ensemble import average, check_classes
from detection.model.roi_head import RoIOutput


def test_probabilities_and_deltas_are_averaged_by_hand():
    one = RoIOutput(torch.tensor([[0.2, 0.8]]).log() + 7, torch.tensor([[[1.0, 2, 3, 4]]]))
    two = RoIOutput(torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[[3.0, 2, 1, 0]]]))
    logits, deltas = average([one, two])
    torch.testing.assert_close(logits, torch.tensor([[math.log(0.4), math.log(0.6)]]))
    torch.testing.assert_close(logits.softmax(dim=1), torch.tensor([[0.4, 0.6]]))
    assert deltas.tolist() == [[[2, 2, 2, 2]]]


def test_one_is_itself():
    output = RoIOutput(torch.randn(3, 4), torch.randn(3, 3, 4))
    assert average([output]) is output


def test_a_certain_member_does_not_decide_alone():
    certain = RoIOutput(torch.tensor([[1000.0, 0.0]]), torch.zeros(1, 1, 4))
    other = RoIOutput(torch.tensor([[-1000.0, 0.0]]), torch.zeros(1, 1, 4))
    logits, _ = average([certain, other])
    torch.testing.assert_close(logits.softmax(dim=1), torch.tensor([[0.5, 0.5]]))


def test_no_regions():
    nothing = RoIOutput(torch.zeros(0, 4), torch.zeros(0, 3, 4))
    assert [part.shape for part in average([nothing] * 3)] == [(0, 4), (0, 3, 4)]


def test_other_classes_are_refused():
    with torch.device("meta"):
        members = [faster_rcnn(count, DetectorSpec("resnet18", rpn_width=8)) for count in (3, 4)]
    with pytest.raises(ValueError, match=r"detectors of the same classes.*K = \[3, 4\]"):
        check_classes(members)
    with pytest.raises(ValueError, match="at least one"):
        check_classes([])
    check_classes(members[:1] * 2)
