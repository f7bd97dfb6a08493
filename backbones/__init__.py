"""Classification networks, and what a detector needs of them; knows nothing of detection."""

from backbones.base import Backbone, Feature
from backbones.cut import Cut, cut
from backbones.fpn import FeaturePyramid, pyramid
from backbones.normalization import FrozenBatchNorm2d, conv_norm, freeze_batch_norm
from backbones.preprocessing import CAFFE_BGR, IMAGENET_RGB, Preprocessing
from backbones.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from backbones.vgg import VGG, vgg16, vgg19
from backbones.weights import load_weights

__all__ = [
    "CAFFE_BGR",
    "IMAGENET_RGB",
    "VGG",
    "Backbone",
    "BasicBlock",
    "Bottleneck",
    "Cut",
    "Feature",
    "FeaturePyramid",
    "FrozenBatchNorm2d",
    "Preprocessing",
    "ResNet",
    "conv_norm",
    "cut",
    "freeze_batch_norm",
    "load_weights",
    "pyramid",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vgg16",
    "vgg19",
]
