from importlib.metadata import EntryPoint, EntryPoints

import pytest

import backbones
from backbones import catalogue


def test_names_are_built_with_their_options():
    network = backbones.build("resnet34", width=8, shortcut="A", num_classes=7)
    assert network.fc.out_features == 7
    assert network.layer2[0].downsample.new_channels == 8
    assert len(backbones.build("cifar_plain32", width=4).layer1) == 5


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown backbone 'resnet19'; expected .*resnet18.*vgg19"
    ):
        backbones.build("resnet19")


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        backbones.build("vgg16", colour=3)


def test_installed_packages_add_their_own(monkeypatch):
    group = catalogue.ENTRY_POINTS
    entry = EntryPoint("mine", "backbones:plain18", group)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: EntryPoints([entry]))
    assert isinstance(backbones.build("mine", width=4), backbones.ResNet)
    with pytest.raises(ValueError, match=r"vgg19_bn.*mine"):
        backbones.build("other")
