import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as PeerGenerator
from torchvision.models.detection.image_list import ImageList

from detection.model.anchors import AnchorGenerator, corner_anchors, paper_anchors

# What py-faster-rcnn's generate_anchors() returns. Its boxes are inclusive: they end at the last
# pixel inside, one short of the half-open end.
PY_FASTER_RCNN = torch.tensor(
    [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
)


def test_the_authors_nine_anchors():
    half_open = PY_FASTER_RCNN + torch.tensor([0, 0, 1, 1])
    assert torch.equal(paper_anchors(), half_open.float())


def test_paper_anchors_are_centred_on_the_cell():
    centres = (paper_anchors(stride=8)[:, :2] + paper_anchors(stride=8)[:, 2:]) / 2
    assert torch.equal(centres, torch.full((9, 2), 4.0))


@pytest.mark.parametrize("sizes", [(32,), (128, 256, 512), (17, 40)])
@pytest.mark.parametrize("ratios", [(0.5, 1.0, 2.0), (0.3,)])
def test_corner_anchors_equal_torchvision(sizes, ratios):
    (wanted,) = PeerGenerator((sizes,), (ratios,)).cell_anchors
    assert torch.equal(corner_anchors(sizes, ratios), wanted)


def test_the_grid_equals_torchvision():
    sizes, strides = ((32,), (64,), (128,), (256,), (512,)), (4, 8, 16, 32, 64)
    generator = AnchorGenerator([corner_anchors(size) for size in sizes], strides)
    levels = [torch.zeros(2, 1, 128 // stride, 192 // stride) for stride in strides]
    images = ImageList(torch.zeros(2, 3, 128, 192), [(128, 192)] * 2)
    for wanted in PeerGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)(images, levels):
        assert torch.equal(torch.cat(generator(levels)), wanted)
    assert generator.per_position == 3


def test_the_grid_by_hand():
    cell = torch.tensor([[0.0, 0.0, 4.0, 4.0], [-1.0, -2.0, 3.0, 4.0]])
    (anchors,) = AnchorGenerator([cell], [8])([torch.zeros(1, 7, 2, 3)])
    shifts = [(0, 0), (8, 0), (16, 0), (0, 8), (8, 8), (16, 8)]  # row by row
    wanted = torch.cat([cell + torch.tensor([x, y, x, y]) for x, y in shifts])
    assert torch.equal(anchors, wanted)


def test_anchors_follow_the_module_and_stay_out_of_checkpoints():
    generator = AnchorGenerator([paper_anchors()], [16])
    assert not generator.state_dict()
    (anchors,) = generator.double()([torch.zeros(1, 1, 2, 2)])
    assert anchors.dtype == torch.float64


@pytest.mark.parametrize(
    ("cells", "strides"),
    [
        ([torch.zeros(3, 4)], (4, 8)),
        ([torch.zeros(3, 4), torch.zeros(2, 4)], (4, 8)),
        ([], ()),
    ],
)
def test_disagreeing_levels_are_refused(cells, strides):
    with pytest.raises(ValueError, match="expected one set of anchors a level"):
        AnchorGenerator(cells, strides)


def test_a_wrong_number_of_maps_is_refused():
    generator = AnchorGenerator([paper_anchors()], [16])
    with pytest.raises(ValueError, match="expected 1 levels, got 2"):
        generator([torch.zeros(1, 1, 2, 2)] * 2)
