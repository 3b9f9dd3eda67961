"""The page around a report: one HTML file, no script, nothing that is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# No source but the page itself: a browser refuses every request, whatever a name in the data might contain.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--soft:#5c6b7a;--line:#d9e0e7;--page:#fff;--card:#f6f8fa;
--fed:#0b6bcb;--loc:#c2571a;--pool:#4b9b6a;--thin:#a7b3bf}
@media(prefers-color-scheme:dark){:root{--ink:#e4eaf0;--soft:#9aa9b8;--line:#33414e;--page:#12181e;--card:#1a222a;
--fed:#5aa9f5;--loc:#ee9560;--pool:#7cc79a;--thin:#566573}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,"Noto Sans","Noto Sans SC",sans-serif}
main{max-width:940px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 6px}h2{font-size:19px;margin:40px 0 8px}
p{margin:6px 0 12px;max-width:70ch}.sub,figcaption,footer{color:var(--soft)}figcaption,footer{font-size:14px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:22px 0 8px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:118px}
.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14.5px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 8px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}th:first-child,td:first-child,td.l,th.l{text-align:left}
td.l{white-space:normal;min-width:80px}
figure{margin:14px 0 8px}svg{width:100%;height:auto;display:block}
svg text{font-size:12.5px;fill:var(--soft)}svg text.name{font-size:13px}svg text.row{fill:var(--ink);font-size:13px}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}
.line{fill:none;stroke-width:2.2;stroke:currentColor}.reach{stroke:currentColor;stroke-width:2;opacity:.5}
.dot{fill:currentColor}
.fed{color:var(--fed)}.loc{color:var(--loc)}.pool{color:var(--pool)}.thin{color:var(--thin)}
.line.loc{stroke-width:1.3;opacity:.75}.line.pool{stroke-dasharray:6 5}.line.thin{stroke-width:1.2;stroke-dasharray:3 4}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;margin:6px 0 0;padding:0;font-size:14px}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:7px;background:currentColor}
.note{border-left:3px solid var(--loc);padding:2px 14px;margin:10px 0}
.good{color:var(--pool);font-weight:600}.poor{color:var(--loc);font-weight:600}
code{font-size:13px;overflow-wrap:anywhere}footer{margin-top:44px;border-top:1px solid var(--line);padding-top:12px}
"""


def page(title: str, subtitle: str, parts: Sequence[str], footer: str) -> str:
    """Return a whole page; `parts` are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p>'
        + "\n".join(parts)
        + f"<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def fragment(content: str) -> str:
    """Return HTML for a place within somebody else's page, such as a notebook: the style holds for it alone."""
    scoped = STYLE.replace(":root{", "&{")
    return (
        f"<style>.chaotian-report{{{scoped}max-width:860px;padding:4px 12px;background:var(--page);color:var(--ink);"
        'font:15px/1.5 system-ui,"Noto Sans","Noto Sans SC",sans-serif}</style>'
        f'<div class="chaotian-report">{content}</div>'
    )


def section(title: str, *parts: str) -> str:
    """Return a section with a heading; `parts` are HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{_class(style)}>{escape(text)}</p>"


def figure(drawing: str, caption: str) -> str:
    """Return a drawing with its caption."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def tiles(facts: Sequence[tuple[str, str]]) -> str:
    """Return (name, figure) pairs in large type."""
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in facts
    )
    return f'<div class="tiles">{cells}</div>'


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: Sequence[int] = (), styles: Sequence[str] = ()
) -> str:
    """Return a table; the first column and those of `left` begin at the left, `styles` is a class by last cell."""
    head = "".join(f"<th{_class('l' if i in left else '')}>{escape(name)}</th>" for i, name in enumerate(columns))
    body = ""
    for index, row in enumerate(rows):
        cells = ""
        for i, cell in enumerate(row):
            style = "l" if i in left else ""
            if styles and i == len(row) - 1:
                style = f"{style} {styles[index]}".strip()
            cells += f"<td{_class(style)}>{escape(str(cell))}</td>"
        body += f"<tr>{cells}</tr>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
