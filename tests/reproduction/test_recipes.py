from detection.reproduction.recipes import composed


def test_later_configurations_and_options_win() -> None:
    command = ("train", "--config", "voc0712.yaml", "--config", "coco2014.yaml")
    options = ("--model.detector.context", "true", "--data.batch_size", "1")
    values = composed((*command, *options, "--config", "resnet101.yaml"))
    assert values["model"]["detector"] == {
        "anchor_sizes": [64, 128, 256, 512],
        "dropout": 0.0,
        "context": True,
        "backbone": "resnet101",
    }
    assert values["data"]["batch_size"] == 1
    assert values["data"]["val"] == "val2014"
    assert values["trainer"]["max_steps"] == 490_000


def test_a_command_without_options_says_nothing() -> None:
    assert composed(("train",)) == {}
