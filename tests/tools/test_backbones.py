import subprocess
import sys
from pathlib import Path

import pytest

import backbones as library
from backbones.catalogue import CIFAR, IMAGENET
from resdet.tools import backbones
from resdet.tools.backbones import main


def cells(line: str) -> list[str]:
    """Of a row of Markdown."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_all_networks_as_markdown(capsys: pytest.CaptureFixture[str]):
    assert main(["--markdown"]) == 0
    output = capsys.readouterr().out
    assert output in (Path(library.__file__).parent / "README.md").read_text(encoding="utf-8")
    headings, rule, *rows = map(cells, output.splitlines())
    assert headings[:4] == ["network", "layers", "parameters (M)", "multiply-adds (G)"]
    assert rule == ["---", *["---:"] * 3, *["---"] * 5]
    assert [row[0] for row in rows] == [*IMAGENET, *CIFAR]
    table = {name: row for name, *row in rows}
    assert table["resnet50"] == [
        "50",
        "25.56",
        "4.089",
        "224×224",
        "256, 512, 1024, 2048",
        "4, 8, 16, 32",
        "IMAGENET1K_V1, IMAGENET1K_V2",
        "RGB",
    ]
    assert table["vgg16"][5:] == ["2, 4, 8, 16", "IMAGENET1K_V1, IMAGENET1K_FEATURES", "RGB"]
    assert table["caffe_resnet101"][6:] == ["–", "BGR"]
    assert table["cifar_resnet1202"] == [
        "1202",
        "19.42",
        "2.829",
        "32×32",
        "16, 32, 64",
        "1, 2, 4",
        "–",
        "RGB",
    ]


def test_all_networks_a_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    few = {name: IMAGENET[name] for name in ("resnet50", "vgg16")}
    monkeypatch.setattr("backbones.catalogue.IMAGENET", few)
    monkeypatch.setattr("backbones.catalogue.CIFAR", {"cifar_plain20": CIFAR["cifar_plain20"]})
    assert main([]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {line[0]: line for line in lines if line}
    assert found["resnet50"][1:5] == ["50", "25.56", "4.089", "224×224"]
    assert found["vgg16"][-3:] == ["IMAGENET1K_V1,", "IMAGENET1K_FEATURES", "RGB"]
    assert found["cifar_plain20"][1:5] == ["20", "0.27", "0.041", "32×32"]


@pytest.mark.parametrize(
    ("arguments", "title", "first", "total"),
    [
        (["resnet18"], "18 layers, image of 224×224", "118,013,952", "1,814,073,344"),
        (["cifar_resnet20"], "20 layers, image of 32×32", "442,368", "40,551,040"),
        # 2×4 cells in conv5_x in place of 7×7, and the classifier's 512,000.
        (["resnet18", "--size", "64", "128"], "image of 64×128", "19,267,584", "296,603,648"),
    ],
)
def test_one_network_stage_by_stage(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    title: str,
    first: str,
    total: str,
):
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert title in output
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}
    assert rows["conv1"][2] == first
    assert rows["total"][2] == total


def test_a_detectors_parts(capsys: pytest.CaptureFixture[str]):
    assert main(["vgg16", "--detector", "--markdown"]) == 0
    network, cut, pyramid = capsys.readouterr().out.split("\n\n**Faster R-CNN")
    stages = dict(map(cells_of_cost, network.splitlines()[4:]))
    parts = dict(map(cells_of_cost, cut.splitlines()[4:]))
    assert cut.splitlines()[0] == " on vgg16: 21 classes, image of 600×1000**"
    trunk = sum(cost[0] for name, cost in stages.items() if name.startswith("conv"))
    assert parts["trunk"] == (trunk, 183_161_475_072)
    region = 25088 * 4096 + 4096 * 4096 + 4096 * 101
    assert parts["one region"] == (region + 4096 + 4096 + 101, region)
    once = parts["trunk"][1] + parts["RPN"][1]
    assert parts["total, 300 regions"][1] == once + 300 * region
    assert pyramid.startswith(" with a feature pyramid on vgg16: 21 classes")
    assert pyramid.count("| one region |") == 1


def cells_of_cost(line: str) -> tuple[str, tuple[int, int]]:
    name, parameters, multiply_adds = cells(line)
    return name, (int(parameters.replace(",", "")), int(multiply_adds.replace(",", "")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20"], "unknown backbone 'resnet20'; expected one of resnet18, "),
        (["vgg16", "--size", "8", "8"], "VGG does not run on [(1, 3, 8, 8)]"),
        (["resnet18", "--size", "0", "8"], "at least 1 × 1, got (0, 8)"),
        (["cifar_resnet20", "--detector"], "expected a network for ImageNet, got 'cifar_resnet20'"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert main(arguments) == 1
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("resdet backbones: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--detector"], ["--size", "8", "8"]])
def test_options_of_one_network_need_its_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "--size and --detector need a NAME" in capsys.readouterr().err


def test_scripts_beside_it_still_find_the_library():
    folder = Path(backbones.__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import backbones; from backbones.preprocessing import CAFFE_BGR\n"
        "print(backbones.__file__, backbones.resnet18.__name__, CAFFE_BGR.order)"
    )
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert found == [str(folder.parent / "backbones" / "__init__.py"), "resnet18", "bgr"]
