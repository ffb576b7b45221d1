"""A page of HTML that needs no other file."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { border-bottom: 1px solid #d0d7de; padding: .25rem .75rem; text-align: right }
th:first-child, td:first-child { text-align: left }
td.text { text-align: left }
svg { height: auto; max-width: 100% }
"""


def page(title: str, body: Iterable[str]) -> str:
    """All of it.

    Args:
        body: HTML; what is empty is left out.
    """
    title = escape(title)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join([f"<h1>{title}</h1>", *filter(None, body)])
        + "\n</body></html>\n"
    )


def described(facts: Mapping[str, str]) -> str:
    """A table of names and what they are."""
    rows = (f'<tr><th>{escape(name)}</th><td class="text">{escape(fact)}</td></tr>' for name, fact in facts.items())
    return f"<table>{''.join(rows)}</table>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of figures."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def svg(figure: Figure, name: str) -> str:
    """A plot, as an element with an id."""
    drawn = drawing(figure)
    # Only the element: an XML declaration has no place inside of HTML.
    return f'<figure id="{name}">{drawn[drawn.index("<svg") :]}</figure>'


def drawing(figure: Figure) -> str:
    """A plot as a file of SVG; the same figures give the same one."""
    text = StringIO()
    with rc_context({"svg.hashsalt": "tidegate", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
