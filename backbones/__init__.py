"""Classification networks, and what a detector needs of them; knows nothing of detection."""

from backbones.base import Backbone, Feature
from backbones.blocks import BasicBlock, Bottleneck, Shortcut
from backbones.catalogue import build
from backbones.cifar import cifar_plain, cifar_resnet
from backbones.cut import Cut, cut
from backbones.fpn import FeaturePyramid, pyramid
from backbones.normalization import FrozenBatchNorm2d, conv_norm, freeze_batch_norm
from backbones.preprocessing import CAFFE_BGR, CIFAR_RGB, IMAGENET_RGB, Preprocessing
from backbones.resnet import (
    ResNet,
    Stem,
    caffe_resnet50,
    caffe_resnet101,
    caffe_resnet152,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from backbones.statistics import estimate_statistics
from backbones.vgg import VGG, vgg11, vgg16, vgg16_bn, vgg19, vgg19_bn
from backbones.weights import Weights, load_weights, read_weights, save_weights

__all__ = [
    "CAFFE_BGR",
    "CIFAR_RGB",
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
    "Shortcut",
    "Stem",
    "Weights",
    "build",
    "caffe_resnet50",
    "caffe_resnet101",
    "caffe_resnet152",
    "cifar_plain",
    "cifar_resnet",
    "conv_norm",
    "cut",
    "estimate_statistics",
    "freeze_batch_norm",
    "load_weights",
    "plain18",
    "plain34",
    "pyramid",
    "read_weights",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "save_weights",
    "vgg11",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]
