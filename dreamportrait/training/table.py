"""Tables in CSV files that a continued run goes on with."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from dreamportrait.core.files import write_text, writing


class Table:
    """A CSV file to which lines are appended. A continued run first drops the lines after its checkpoint.

    New columns may appear after the first line; the file is then written again.
    """

    def __init__(self, path: Path, key: str, done: int) -> None:
        """Open the table and keep the lines whose column `key` is at most `done`."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] = []
        self._rewrite([row for row in self._read() if int(row[key]) <= done])

    def add(self, row: Mapping[str, str]) -> None:
        if set(row) <= set(self._columns):
            with writing(self.path), open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._rewrite([*self._read(), dict(row)])

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            # csv gives None for the missing values of a truncated line, and for the surplus of a line that is too long.
            return [row for row in csv.DictReader(file) if None not in (*row, *row.values())]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, content.getvalue())
