"""The table that all measures of tests/bench fill: a row is a measure, its value, what stands beside it, their ratio, the target, and whether that was reached."""
import statistics

MIB = 1 << 20
rows, left_out = [], []


def spread(values, digits=2):
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def row(measure, value, beside, ratio, target, reached):
    rows.append((measure, value, beside, ratio, target, {True: "yes", False: "**no**", None: ""}[reached]))
    print("  | " + " | ".join(rows[-1]), flush=True)


def ratio_row(measure, values, beside, others, limit, unit="s"):
    ratio = statistics.median(values) / statistics.median(others)
    row(measure, f"{spread(values)} {unit}", f"{beside}: {spread(others)} {unit}", f"{ratio:.2f}", f"at most {limit}", ratio <= limit)
