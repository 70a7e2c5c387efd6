"""Tests of hostile YAML: nothing is a traceback, and work is bounded."""

from pathlib import Path

import pytest

from dreamportrait.core.settings import MOST_BYTES, override, parse, read_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{[1, 2]: 3}", "a name cannot be a list"),
        ("? {a: 1}\n: 2", "a name cannot be a list"),
        ("a: !!bool 'abc'", "a value does not fit its tag"),
        ("a: !!int ''", "a value does not fit its tag"),
        ("a: !!timestamp 'x'", "a value does not fit its tag"),
        ("a: !!python/object:os.system 1", "could not determine a constructor"),
        ("&a [*a]", "an anchor holds itself"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
    ],
)
def test_text_that_is_no_configuration(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"here is no YAML: .*{message}"):
        parse(text, "here")


def test_anchors_are_counted_before_they_are_filled_in() -> None:
    levels = "abcdefghijk"
    lines = [f"a: &a [{', '.join('x' * 9)}]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip(levels, levels[1:], strict=False)]
    with pytest.raises(ValueError, match=r"[\d,]{14} values with all anchors filled in; the most are 10,000"):
        parse("\n".join(lines), "here")
    assert parse("a: &x {b: 1}\nc: *x", "here") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("path", ["/dev/zero", "long.yaml"])
def test_files_are_read_to_a_limit(tmp_path: Path, path: str) -> None:
    (tmp_path / "long.yaml").write_text("#" * (MOST_BYTES + 1))
    with pytest.raises(ValueError, match=r"has more than 1,048,576 bytes"):
        read_yaml(tmp_path / path)


def test_messages_stay_short() -> None:
    with pytest.raises(ValueError, match="no section") as error:
        override({"a": {"b": "x" * 10_000}}, "a.b.c=1")
    assert len(str(error.value)) < 300
