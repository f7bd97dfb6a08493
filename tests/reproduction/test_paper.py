from pathlib import Path

import pytest

from detection.reproduction import tables
from detection.reproduction.paper import TABLES, table10
from detection.reproduction.recipes import composed
from detection.reproduction.study import evaluation_folders, missing, study_steps

ROOT = Path("data")
OUT = Path("out")


def test_every_published_figure_has_its_row() -> None:
    for name in ("table7", "table8", "table9", "table12"):
        study = TABLES[name](ROOT, "joint")
        own = [figure for row in study.rows for figure in row.published]
        assert sorted(own) == sorted(getattr(tables, name.upper().replace("TABLE", "TABLE_")))
    for name, rows in (("table10", tables.TABLE_10), ("table11", tables.TABLE_11)):
        own = [figure.value for row in TABLES[name](ROOT, "joint").rows for figure in row.published]
        assert own == [row.mean for row in rows]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_can_run_or_says_why_not(name: str) -> None:
    study = TABLES[name](ROOT, "joint")
    assert len({row.key for row in study.rows}) == len(study.rows)
    for row in study.rows:
        assert bool(row.trainings) != bool(row.unavailable)
        assert len(row.metrics) == len(row.published)
    runnable = {row.key for row in study.rows if row.trainings}
    assert {key for gap in study.gaps for key in (gap.a, gap.b)} <= runnable


def test_table_7_trains_both_networks_alike_but_for_the_model() -> None:
    vgg, resnet, *_ = TABLES["table7"](ROOT, "joint").rows
    (a,), (b,) = vgg.trainings, resnet.trainings
    differing = [pair for pair in zip(a.command, b.command, strict=True) if len(set(pair)) > 1]
    assert differing == [("vgg16.yaml", "resnet101.yaml")]
    assert (vgg.options, vgg.metrics) == (resnet.options, resnet.metrics) == ((), ("voc07",))


def test_table_9_is_a_ladder() -> None:
    rows = [row for row in TABLES["table9"](ROOT, "joint").rows if row.trainings]
    switches = [
        (
            "--model.detector.context" in row.trainings[0].command,
            "--refine" in row.options and "--vote" in row.options,
            "--scales" in row.options,
        )
        for row in rows
    ]
    assert switches[1:] == [
        (False, False, False),
        (False, True, False),
        (True, True, False),
        (True, True, True),
    ]
    # refinement and scales need no training of their own
    assert rows[1].trainings == rows[2].trainings
    assert rows[3].trainings == rows[4].trainings != rows[2].trainings
    assert rows[4].options[-6:] == ("--scales", "200", "400", "600", "800", "1000")


def test_steps_train_once_and_evaluate_the_last_checkpoint() -> None:
    study = TABLES["table9"](ROOT, "joint")
    steps = study_steps(study, OUT, [0, 1], devices=2)
    by_tool = [step.command[0] for step in steps]
    assert by_tool == ["train"] * 6 + ["evaluate"] * 10  # 3 detectors and 5 rows, for two seeds
    first = steps[0]
    assert first.command[-8:] == (
        *("--trainer.devices", "2", "--data.batch_size", "1", "--seed_everything", "0"),
        *("--output", "out/coco2014-vgg16/seed-0"),
    )
    assert first.resumes == first.makes == Path("out/coco2014-vgg16/seed-0/last.ckpt")
    last = steps[-1]
    assert "out/coco2014-resnet101-context/seed-1/last.ckpt" in last.command
    assert last.after == ("coco2014-resnet101-context-seed-1",)
    folder = evaluation_folders(study.rows[4], OUT, [0, 1])[1]
    assert folder == Path(last.command[last.command.index("--output") + 1])
    assert last.makes == folder / "figures.json"


def test_the_alternating_schedule_has_runs_of_its_own() -> None:
    joint, alternating = (TABLES["table7"](ROOT, one).rows[0] for one in ("joint", "alternating"))
    assert alternating.trainings[0].command[0] == "alternate"
    assert joint.key != alternating.key
    step = study_steps(TABLES["table7"](ROOT, "alternating"), OUT, [0])[0]
    assert step.resumes == Path("out/voc0712-vgg16-alternating/seed-0/step1/last.ckpt")
    assert step.makes == Path("out/voc0712-vgg16-alternating/seed-0/last.ckpt")


def test_missing_data_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    study = TABLES["table7"](tmp_path, "joint")
    assert missing(study) == (
        f"data not here: {tmp_path}/VOC2007/ImageSets/Main/test.txt is missing; "
        "`resdet download voc07 voc12` fetches it"
    )
    for name in study.needed:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert missing(study) == ""


def test_table_10_fine_tunes_a_detector_of_coco() -> None:
    *_, row = table10(ROOT, "joint", Path("/coco.ckpt")).rows
    assert row.published[0].value == 85.6
    command = row.trainings[0].command
    assert command[-2:] == ("--model.start", "/coco.ckpt")
    assert "--model.detector.context" in command
    assert composed(command)["model"]["detector"]["anchor_sizes"] == [64, 128, 256, 512]
    assert {"--refine", "--vote", "--scales"} < set(row.options)


def test_fine_tuning_depends_on_the_file_that_it_starts_from() -> None:
    steps = study_steps(table10(ROOT, "joint", Path("/coco.ckpt")), OUT, [0])
    reads = {step.name: step.reads for step in steps if step.reads}
    assert reads == {"voc0712-resnet101-context-coco-seed-0": (Path("/coco.ckpt"),)}
