import pytest

from detection.reproduction.documents import (
    CONSTANTS,
    Block,
    DocumentError,
    find_blocks,
    find_figures,
    replace_blocks,
)

DOCUMENT = """# Title

<!-- generated: one -->
AP 0.5, in
2 s.
<!-- end: one -->
Between.
<!-- generated: empty -->
<!-- end: empty -->
"""


def test_blocks_stand_between_their_markers():
    assert find_blocks("No block <!-- generated: here -->\n") == []
    first, second = find_blocks(DOCUMENT)
    assert first == Block("one", "AP 0.5, in\n2 s.\n", DOCUMENT.index("AP"))
    assert second == Block("empty", "", DOCUMENT.index("<!-- end: empty"))


def test_blocks_are_replaced_and_nothing_else():
    assert replace_blocks(DOCUMENT, {}) == DOCUMENT
    new = replace_blocks(DOCUMENT, {"empty": "a\nb\n", "one": "", "other": "c"})
    assert [block.text for block in find_blocks(new)] == ["", "a\nb\n"]
    assert replace_blocks(new, {"one": "AP 0.5, in\n2 s.\n", "empty": ""}) == DOCUMENT


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        ("generated: a", "block a has no end"),
        ("end: a", "block a ends where it did not begin"),
        ("generated: a|end: b", "block b ends where it did not begin"),
        ("generated: a|generated: b|end: b", "block a has no end before block b"),
        ("generated: a|end: a|generated: a|end: a", "block a stands twice"),
    ],
)
def test_markers_out_of_order_are_refused(markers: str, message: str):
    document = "".join(f"<!-- {marker} -->\n" for marker in markers.split("|"))
    with pytest.raises(DocumentError, match=f"^{message}$"):
        find_blocks(document)


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("AP of 0.594 here", "0.594"),
        ("AP 59 here", "AP 59"),
        ("mAP 73.2", "mAP 73.2"),
        ("| AP50 | 41.5 |", "41.5"),
        ("it takes 438 s", "438 s"),
        ("in 21s.", "21s"),
        ("8.2 minutes", "8.2 minutes"),
        ("1 minute", "1 minute"),
        ("3 min", "3 min"),
        ("1,378 MB of memory", "1,378 MB"),
        ("4 GB", "4 GB"),
        ("12 %", "12 %"),
        ("12% less", "12%"),
        ("2 times", "2 times"),
        ("70 images/s", "70 images/s"),
        ("is 2× as quick", "2×"),
        ("2 × as quick", "2 ×"),
        ("quicker by ×54", "×54"),
        ("50 ± 1", "± 1"),
        ("differs by 3e-8", "3e-8"),
        ("`0.59`", "0.59"),
        ("version 2.14.1", "2.14.1"),
    ],
)
def test_a_planted_figure_is_found(text: str, figure: str):
    assert [found.text for found in find_figures(text)] == [figure]
    assert find_figures(f"```sh\n{text}\n```\n") == []
    assert find_figures(f"<!-- generated: a -->\n{text}\n<!-- end: a -->\n") == []
    (found,) = find_figures(f"First\n```\n1.5\n```\n{text}\nLast")
    assert found.line == 5


@pytest.mark.parametrize(
    "text",
    [
        "ResNet-50 on 400 images of 768 × 1280, a 3×3 convolution, 1×1 and 32×32",
        "Tables 7 to 12, conv4_x, c2 … c5, v1.5, resnet18 stage 2 starts",
        "AP and AP50, mean ± standard deviation, by 11 points",
        "Python 3.11, torch 2.11 and torchvision 0.26 or later; Apache-2.0",
        "section 3.3 of the paper at IoU 0.50 with `--lr 0.16` and `--x.y=0.1`",
        "36,000 objects in 80 classes",
    ],
)
def test_sizes_counts_and_constants_are_no_figures(text: str):
    assert find_figures(text) == []


def test_every_constant_has_a_reason():
    assert all(CONSTANTS.values())
