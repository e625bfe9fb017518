"""What the benchmarks print: tables in Markdown, with ratios to the first row that has the value."""

import statistics


def medians(runs):
    """One dictionary of figures from those of several rounds."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def interleaved(measurements, rounds):
    """The medians of each of the named measurements, all of them in turn in every round."""
    runs = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            runs[name].append(measure())
    return {name: medians(found) for name, found in runs.items()}


def table(title, unit, rows, others=()):
    """`rows` are names with dictionaries; `unit` is the figure that is compared, `others` stand beside it."""
    heads = [title, unit, "× " + next(iter(rows)).split(",")[0], *others]
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1)]
    base = next(iter(rows.values()))[unit]
    for name, figures in rows.items():
        lines.append([name, number(figures[unit]), f"{figures[unit] / base:.2f}" if base else "–",
                      *(number(figures[other]) if other in figures else "–" for other in others)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
