"""The bill as text."""

from collections.abc import Sequence

from dreamportrait.systems.dreamportrait.cost.bill import Bill, StageCost
from dreamportrait.systems.dreamportrait.cost.memory import CONTEXT, GIB, WASTE


def page(bill: Bill) -> str:
    """Return the bill as tables."""
    memory = [_memory(bill), _fits(bill)] if bill.batch else []  # a run that only fits a prior takes no steps
    parts = [_networks(bill), *memory, _time(bill), _disk(bill)]
    notes = [f"assumed: {each}" for each in bill.assumed]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _networks(bill: Bill) -> str:
    rows = [("network", "parameters", "trained")]
    rows += [(name, f"{count:,}", f"{moving:,}") for name, count, moving in bill.networks if count]
    return table(rows)


def _memory(bill: Bill) -> str:
    m = bill.memory
    step = f"gradients and activations, {bill.batch} pictures at a time"
    rows = [("memory of one process", "GB")]
    rows += [(part.name, _gb(part.size)) for part in m.parts]
    rows += [(step, _gb(m.step(bill.batch)))]
    rows += [(f"context {_gb(CONTEXT)}, and {WASTE:.0%} that the allocator wastes (assumed)", _gb(_rest(bill)))]
    return table([*rows, ("sum", _gb(m.total(bill.batch)))])


def _rest(bill: Bill) -> float:
    return bill.memory.total(bill.batch) - bill.memory.held - bill.memory.step(bill.batch)


def _fits(bill: Bill) -> str:
    rows = [("GPU", "most pictures at a time", "GB with them")]
    for size, most in bill.fits.items():
        needed = bill.memory.total(most or bill.least)
        rows.append((f"{size} GB", str(most) if most else f"{bill.least} do not fit", _gb(needed)))
    return table(rows)


def _time(bill: Bill) -> str:
    rows: list[Sequence[str]] = [("stage", "images", "images/s", "hours", "GPU-hours", "by")]
    rows += [_stage(stage, bill.processes) for stage in bill.stages]
    known = [stage.seconds for stage in bill.stages if stage.seconds is not None]
    if len(bill.stages) > 1 and len(known) == len(bill.stages):
        hours = sum(known) / 3600
        rows.append(("sum", "", "", f"{hours:.1f}", f"{hours * bill.processes:.0f}", ""))
    measured = [stage for stage in bill.stages if stage.memory is not None]
    lines = [f"{s.name}: {_gb(s.memory or 0)} GB of memory, measured" for s in measured]
    return "\n".join([table(rows), *lines])


def _stage(stage: StageCost, processes: int) -> tuple[str, ...]:
    if stage.seconds is None:
        return stage.name, f"{stage.images:,}", "?", "?", "?", stage.how
    hours = stage.seconds / 3600
    pace = f"{stage.images / stage.seconds:.3g}" if stage.seconds else "-"
    return stage.name, f"{stage.images:,}", pace, _hours(hours), _hours(hours * processes), stage.how


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"


def _disk(bill: Bill) -> str:
    return table([("on disk", "GB"), *((name, _gb(size)) for name, size in bill.disk.items())])


def _gb(size: float) -> str:
    return f"{size / GIB:.3f}" if size < GIB / 10 else f"{size / GIB:.2f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
