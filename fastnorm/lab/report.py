"""The results as one HTML page that needs nothing else: no script, no font, no image from elsewhere."""

from __future__ import annotations

import re
from html import escape
from string import Template

from fastnorm.lab import plots
from fastnorm.lab.findings import findings
from fastnorm.lab.results import Results
from fastnorm.lab.tables import Cell, Table, tables

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastnorm: numerical stability</title>
<style>
:root {
  color-scheme: light dark;
  --text: #1b1e23; --quiet: #59616b; --faint: #7f868f; --ground: #ffffff; --panel: #f5f6f8; --line: #dfe2e6;
  --best: #0b6b3a; --best-ground: #e3f4ea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e6e8eb; --quiet: #a3abb5; --faint: #8b939d; --ground: #14171b; --panel: #1c2025; --line: #333940;
    --best: #7fe0a7; --best-ground: #17372a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 78rem; color: var(--text); background: var(--ground);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; }
h3 { font-size: 1rem; margin: 2rem 0 .2rem; }
p, ul, dl { max-width: 46rem; }
li { margin: .3rem 0; }
sup, sub { line-height: 0; font-size: .75em; }
.quiet { color: var(--quiet); }
.small { font-size: .875rem; }
figure { margin: 1.5rem 0 2.5rem; }
figure svg { width: 100%; height: auto; display: block; color: var(--text); }
figcaption { max-width: 46rem; margin-top: .6rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; margin: .6rem 0 1.5rem; }
table { border-collapse: collapse; font-size: .84rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .65rem; text-align: right; white-space: nowrap; }
th { background: var(--panel); font-weight: 600; vertical-align: bottom; }
tbody tr + tr td, tbody tr + tr th { border-top: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; }
tbody th { font-weight: 500; }
td.best { color: var(--best); background: var(--best-ground); font-weight: 650; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .5rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; }
</style>
</head>
<body>
<h1>Numerical stability of mean and variance</h1>
<p class="quiet">$subtitle</p>

<h2>What was found</h2>
<ul>
$findings
</ul>

<h2>How to read it</h2>
<p>The data are made hard on purpose. What is true of them is computed in integers, without rounding, from the values
as they are stored in the dtype; rows marked <em>certified</em> use the values that NIST publishes instead, of which
doubles can hold only so many digits.</p>
<dl>
<dt>digits</dt><dd>the log relative error, &minus;log<sub>10</sub>(|computed &minus; true| / |true|): how many decimal
digits are right. An error of one unit in the last place counts as all digits: 3.0 in float16, 6.9 in float32, 15.7 in
float64. Where the true value is 0, errors are relative to the largest value of the line. A mean that
nearly cancels is scored to the digits that the rounding of its values leaves.</dd>
<dt>kappa</dt><dd>the condition number, &radic;(1 + n mean<sup>2</sup> / m<sub>2</sub>), about mean / sd: by this
factor relative errors of the data grow in the variance. It is infinite for a constant.</dd>
<dt>algorithms</dt><dd><em>auto</em> is what fastnorm uses. The others are textbook algorithms that compute in the dtype
of the data; auto computes float16 in float32.</dd>
<dt>green cells</dt><dd>the best of the row, and all that tie with it.</dd>
</dl>
$figures
<h2>All numbers</h2>
$tables

<h2>Where this was measured</h2>
<dl>
$machine
</dl>
</body>
</html>
""")

_CAPTIONS = {
    "kappa": (
        "Error against kappa",
        "Each panel is one algorithm, each dot the worst of a few lines, each line the theoretical bound of that dtype "
        "(Chan, Golub and LeVeque 1983, with a factor of 4 for the constant they leave out). The bound of the naive "
        "algorithm grows with the square of kappa, those of Welford's and the pairwise one with kappa; that of auto "
        "does not depend on it.",
    ),
    "n": (
        "Error against n",
        "The length of the line at a constant kappa. The errors of algorithms that add in order may grow with n, "
        "those of algorithms that add in blocks or in halves hardly. A line that cannot be seen lies below another; "
        "a gap is an error of 0.",
    ),
    "speed": (
        "Accuracy against speed",
        "Up is more accurate, left is faster. The digits are the mean over all data sets above, the times those of one "
        "line in cache.",
    ),
}


def page(results: Results) -> str:
    """Return the results as an HTML page.

    Parameters
    ----------
    results : Results
        What `run` returned.

    Returns
    -------
    str
        The whole document: findings, figures, tables, machine and versions.

    Raises
    ------
    ImportError
        matplotlib, which draws the figures, is not installed.
    """
    figures = []
    for name, figure in plots.draw(results).items():
        title, caption = _CAPTIONS[name]
        figures.append(
            f"<h2>{title}</h2>\n<figure>\n{plots.inline_svg(figure, f'{name}-')}"
            f'<figcaption class="quiet small">{escape(caption)}</figcaption>\n</figure>'
        )
    version = results.versions.get("fastnorm", "")
    facts = {**results.machine, "versions": ", ".join(f"{name} {value}" for name, value in results.versions.items())}
    return _PAGE.substitute(
        subtitle=escape(f"fastnorm {version}, {results.date}, {results.machine.get('processor', '')}"),
        findings="\n".join(f"<li>{_text(sentence)}</li>" for sentence in findings(results)),
        figures="\n".join(figures),
        tables="\n".join(_table(one) for one in tables(results)),
        machine="\n".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()),
    )


def _text(text: str) -> str:
    """Escape a text, and raise its exponents."""
    return re.sub(r"\^(\d+)", r"<sup>\1</sup>", escape(text))


def _table(table: Table) -> str:
    # A name may break where it is joined, so that columns stay narrow.
    headers = "".join(
        f'<th scope="col">{escape(header).replace("_", "_<wbr>").replace("-", "-<wbr>")}</th>'
        for header in table.headers
    )
    rows = "\n".join(
        f'<tr><th scope="row">{_text(first.text)}</th>{"".join(_cell(cell) for cell in rest)}</tr>'
        for first, *rest in table.rows
    )
    return (
        f'<h3>{escape(table.title)}</h3>\n<p class="quiet small">{escape(table.note)}</p>\n'
        f'<div class="scroll"><table>\n<thead><tr>{headers}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )


def _cell(cell: Cell) -> str:
    return f'<td class="best">{escape(cell.text)}</td>' if cell.best else f"<td>{escape(cell.text)}</td>"
