"""A CSV file that gains a line now and then."""

import csv
from collections.abc import Mapping
from pathlib import Path


class Table:
    """Continued, it forgets the lines after where it continues. Columns may come later than the first line."""

    def __init__(self, path: Path, key: str, done: int) -> None:
        """key: the column that counts; lines up to `done` stay."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] = []
        self._rewrite([row for row in self._read() if int(row[key]) <= done])

    def add(self, row: Mapping[str, str]) -> None:
        if set(row) <= set(self._columns):
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._rewrite([*self._read(), dict(row)])

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            # None stands for what a line that was cut short lacks, or for what it has too many.
            return [row for row in csv.DictReader(file) if None not in (*row, *row.values())]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with open(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
