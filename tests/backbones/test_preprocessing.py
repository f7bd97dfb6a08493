import pytest
import torch
from torchvision.transforms.v2 import functional

from backbones import CAFFE_BGR, IMAGENET_RGB


def test_imagenet_affine_is_torchvisions_normalisation():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    expected = functional.normalize(
        functional.to_dtype(image, torch.float32, scale=True), IMAGENET_RGB.mean, IMAGENET_RGB.std
    )
    scale, shift = IMAGENET_RGB.affine()
    torch.testing.assert_close(
        image * scale[:, None, None] + shift[:, None, None], expected, rtol=0, atol=1e-6
    )


def test_caffe_affine_subtracts_the_bgr_means():
    scale, shift = CAFFE_BGR.affine()
    blue, green, red = 110.0, 120.0, 130.0
    got = torch.tensor([blue, green, red]) * scale + shift
    assert CAFFE_BGR.order == "bgr"
    assert got.tolist() == pytest.approx([7.0199, 4.0535, 7.2283], abs=1e-5)
    assert scale.dtype == shift.dtype == torch.float32
