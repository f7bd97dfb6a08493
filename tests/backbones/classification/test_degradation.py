import numpy as np
import pytest

from backbones.classification.degradation import Recipe, Run, summary, train

RECIPE = Recipe(steps=8, batch_size=4, images=16, test_images=8)


def test_a_run_is_repeatable():
    updates = []
    run = train("cifar_resnet20", 0, RECIPE, lambda: updates.append(1))
    assert len(updates) == 8
    assert [step for step, _ in run.train] == [step for step, _ in run.test] == list(range(1, 9))
    assert run.train_error == run.train[-1][1]
    assert run.test_error == run.test[-1][1]
    assert {error for _, error in run.train} <= {0.0, 25.0, 50.0, 75.0, 100.0}
    again = train("cifar_resnet20", 0, RECIPE, lambda: None)
    assert run == again._replace(seconds=run.seconds)
    assert run.seconds > 0
    assert len(run.predictions_sha256) == 64
    assert run.train != train("cifar_resnet20", 1, RECIPE, lambda: None).train
    assert np.array_equal(run.curve("net").train, np.array(run.train))


def test_summary_by_hand():
    runs = [Run(10.0, 30.0, [], [], "", 1.0), Run(14.0, 30.0, [], [], "", 1.0)]
    found = summary({"net": runs, "one": runs[:1]})
    assert found["net"]["train_error"] == {"mean": 12.0, "std": pytest.approx(8**0.5)}
    assert found["net"]["test_error"] == {"mean": 30.0, "std": 0.0}
    assert found["one"] == {
        "seeds": 1,
        "train_error": {"mean": 10.0, "std": 0.0},
        "test_error": {"mean": 30.0, "std": 0.0},
    }


@pytest.mark.parametrize("options", [{"steps": 7}, {"batch_size": 0}, {"images": 5}, {"lr": 0}])
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="expected at least 8 steps"):
        Recipe(**options)
