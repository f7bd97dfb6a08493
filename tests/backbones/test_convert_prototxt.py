"""The text format by hand-written cases."""

import pytest

from backbones.convert import prototxt
from backbones.convert.prototxt import parse, render


def test_fields_messages_and_comments():
    text = """
    name: "ResNet-50"  # the network
    input_dim: 1 input_dim: 3
    layer { name: 'a' bottom: "x" bottom: "y" eltwise_param { operation: SUM } }
    layer: { bias_term: false eps: 1e-5 shift: -.5 neg: -2 path: "a # b { }" }
    """
    assert parse(text) == {
        "name": ["ResNet-50"],
        "input_dim": [1, 3],
        "layer": [
            {"name": ["a"], "bottom": ["x", "y"], "eltwise_param": [{"operation": ["SUM"]}]},
            {
                "bias_term": [False],
                "eps": [1e-5],
                "shift": [-0.5],
                "neg": [-2],
                "path": ["a # b { }"],
            },
        ],
    }


def test_what_is_rendered_is_read_back():
    message = parse('a: "x" b { c: 1 c: 2.5 d: true e: MAX f { } } a: "y"')
    assert parse(render(message)) == message
    assert render(message).startswith('a: "x"\na: "y"\nb {\n  c: 1\n')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a {\n b: 1\n", "line 3: expected a value or '}', got the end"),
        ("a: 1\n}", "line 2: expected a field or its value, got '}'"),
        ("a:\n\n: 1", "line 3: .* got ':'"),
        ("a b: 1", "line 1: .* got 'b'"),
        ("a: [1, 2]", r"line 1: .* got '\['"),
        ('a: "open', "line 1: .* got '\"'"),
        ("a: 1x", "line 1: .* got '1'"),
        ("3: 1", "line 1: .* got '3'"),
        ("{ a: 1 }", "line 1: .* got '{'"),
        ("a", "line 1: expected a value"),
    ],
)
def test_broken_text_is_refused_with_its_line(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_depth_and_length_cost_nothing(monkeypatch):
    assert parse("a {" * 20_000 + "}" * 20_000)
    monkeypatch.setattr(prototxt, "MAX_CHARACTERS", 3)
    with pytest.raises(ValueError, match="expected at most 3 characters, got 4"):
        parse("a: 1")
