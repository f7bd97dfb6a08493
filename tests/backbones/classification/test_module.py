import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from backbones.classification.augmentation import Augmentation
from backbones.classification.data import ClassificationData
from backbones.classification.module import ClassifierModule
from backbones.classification.schedule import Schedule
from backbones.classification.testing import normalise

pytestmark = pytest.mark.filterwarnings("ignore:GPU available", "ignore:The 'max_epochs'")


def module(backbone: str = "cifar_resnet20", width: int = 4, **options) -> ClassifierModule:
    return ClassifierModule(["cat", "dog"], backbone, {"width": width}, **options)


def data(image_folder, **options) -> ClassificationData:
    crop = Augmentation(32, None, lighting=0)
    given = {"workers": 0, "augmentation": crop, "test_short_side": None, "batch_size": 3}
    return ClassificationData(str(image_folder(train=3, val=2)), **{**given, **options})


def trainer(tmp_path, steps: int, **options) -> pl.Trainer:
    return pl.Trainer(
        **options,
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )


def test_the_figures_are_of_all_images(image_folder, tmp_path):
    found, images = module(), data(image_folder, val_batch_size=3)
    with torch.no_grad():
        found.network.fc.weight.zero_()
        found.network.fc.bias.copy_(torch.tensor([50.0, 0]))  # always a cat
    (figures,) = trainer(tmp_path, 1).validate(found, images, verbose=False)
    # Batches of three and one: a mean over batches would be another.
    assert figures["val/top1"] == 50
    assert figures["val/top5"] == 0
    assert figures["val/loss"] == pytest.approx(25)


def test_statistics_are_those_of_the_training_images(image_folder, tmp_path):
    found, images = module(), data(image_folder, batch_size=6)
    found.estimate_statistics(images)
    ((pixels, _),) = images.statistics_dataloader()
    with torch.no_grad():
        outputs = found.network.conv1(normalise(found.network, pixels))
    expected = outputs.mean((0, 2, 3))
    assert torch.allclose(found.network.bn1.running_mean, expected, atol=1e-5)


def test_without_batch_norm_nothing_is_estimated(image_folder):
    found = module("vgg16")
    assert not found.has_batch_norm
    before = {name: tensor.clone() for name, tensor in found.state_dict().items()}
    found.estimate_statistics(data(image_folder))
    assert all(torch.equal(before[name], one) for name, one in found.state_dict().items())


def test_the_weights_follow_hand_made_sgd(image_folder, tmp_path):
    schedule = Schedule(lr=0.5, momentum=0.9, weight_decay=0.01, milestones=(1,), patience=None)
    found, images = module(schedule=schedule), data(image_folder)
    twin = module()
    twin.load_state_dict(found.state_dict())
    network, velocity = twin.network.train(), dict[str, torch.Tensor]()
    for (pixels, labels), rate in zip(images.statistics_dataloader(), (0.5, 0.05), strict=True):
        scores = network.logits(normalise(network, pixels))
        network.zero_grad()
        nn.functional.cross_entropy(scores, labels).backward()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                slope = weight.grad + 0.01 * weight
                velocity[name] = 0.9 * velocity.get(name, 0) + slope
                weight.sub_(rate * velocity[name])
    trainer(tmp_path, 2).fit(found, images)
    for name, weight in network.named_parameters():
        trained = found.network.get_parameter(name)
        assert torch.allclose(trained, weight, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_before_the_step(image_folder, tmp_path, precision: str):
    found = module(schedule=Schedule(lr=0.5, weight_decay=0.0))
    before = [weight.detach().clone() for weight in found.network.parameters()]
    clipped = {"gradient_clip_val": 1e-3, "precision": precision}
    trainer(tmp_path, 1, **clipped).fit(found, data(image_folder))
    after = list(found.network.parameters())
    moved = [(one - other).norm() for one, other in zip(after, before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_other_classes_are_refused(image_folder, tmp_path):
    found = ClassifierModule(["cat", "wolf"], "cifar_resnet20", {"width": 4})
    with pytest.raises(ValueError, match=r"another order: \['dog', 'wolf'\]"):
        trainer(tmp_path, 1).fit(found, data(image_folder))


def test_a_checkpoint_keeps_the_learning_rates_state():
    found = module(schedule=Schedule(warmup_lr=0.01))
    found.rate.trained(50)
    checkpoint: dict = {}
    found.on_save_checkpoint(checkpoint)
    other = module(schedule=Schedule(warmup_lr=0.01))
    assert other.rate != found.rate
    other.on_load_checkpoint(checkpoint)
    assert other.rate == found.rate
