"""Test of the committed measurements."""

import re

from places import ROOT


def test_results_name_no_folder_of_one_machine():
    """A measurement that is repeated elsewhere must not differ by where it ran."""
    results = sorted((ROOT / "benchmarks" / "results").rglob("*.json"))
    assert results
    absolute = re.compile(r'"(/|[A-Z]:\\)[^"]*"')
    named = {path.name: found.group() for path in results if (found := absolute.search(path.read_text("utf-8")))}
    assert not named, f"give --out as a path below the repository's root: {named}"
