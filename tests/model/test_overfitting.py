import torch
from torchvision.ops import box_iou

from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.matching import Sampler
from detection.model.rpn import ProposalSelection
from detection.structures import Batch, Target

OBJECTS = [
    [(1, (12, 16, 60, 52)), (2, (70, 64, 118, 120))],
    [(2, (8, 72, 56, 116)), (1, (60, 10, 124, 50))],
]
COLOURS = {1: (220, 40, 30), 2: (30, 60, 210)}


def two_images() -> tuple[Batch, list[Target]]:
    """Rectangles, red for class 1 and blue for class 2, on grey noise."""
    images = torch.randint(100, 140, (2, 3, 128, 128), dtype=torch.uint8)
    targets = []
    for image, objects in zip(images, OBJECTS, strict=True):
        for label, (x1, y1, x2, y2) in objects:
            image[:, y1:y2, x1:x2] = torch.tensor(COLOURS[label])[:, None, None]
        labels, boxes = zip(*objects, strict=True)
        ignore = torch.zeros(len(objects), dtype=torch.bool)
        targets.append(Target(torch.tensor(boxes).float(), torch.tensor(labels), ignore))
    sizes = torch.tensor([[128, 128]] * 2)
    return Batch(images, sizes, sizes, torch.arange(2)), targets


def test_two_images_are_learnt():
    spec = DetectorSpec(
        "resnet18",
        width=8,
        pyramid=True,
        pyramid_channels=32,
        batch_norm="trained",
        frozen_stages=0,
        anchor_sizes=(16, 32, 64, 128, 256),
        rpn_width=64,
        proposals=ProposalSelection(before_nms=300, after_nms=20, min_side=1.0),
    )
    detector = faster_rcnn(2, spec)
    criterion = Criterion(
        rpn=RPNCriterion(cross_boundary=True),
        roi=RoICriterion(background=(0.0, 0.5), sampler=Sampler(32, 0.25), sigma=3.0),
        proposals=ProposalSelection(before_nms=300, after_nms=50, min_side=1.0),
    )
    batch, targets = two_images()
    steps = 120
    optimizer = torch.optim.Adam(detector.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(criterion(detector, batch, targets)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        boxes, scores, labels = detector.eval()(batch)
    for image, target in enumerate(targets):
        best = scores[image] > 0.5
        assert sorted(labels[image][best].tolist()) == sorted(target.labels.tolist())
        iou, rows = box_iou(boxes[image][best], target.boxes).max(dim=1)
        assert (iou > 0.7).all()
        assert torch.equal(labels[image][best], target.labels[rows])
