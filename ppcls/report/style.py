"""How a report's page looks, and its one script: tables sorted by a click on a heading."""

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --faint: #59636e;
  --line: #d8dee4; --panel: #f5f7f9; --accent: #2f62a8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e4e8ec; --faint: #9aa5b1; --line: #333a42;
    --panel: #1d2126; --accent: #8ab4f0; }
  img.plot { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
p, dl { margin: 0.4rem 0; }
.faint { color: var(--faint); font-size: 0.9rem; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dl.about dt { color: var(--faint); }
dl.about dd { margin: 0; }
ul.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr));
  gap: 0.6rem; list-style: none; margin: 1rem 0; padding: 0; }
ul.tiles li { background: var(--panel); border: 1px solid var(--line); border-radius: 0.5rem;
  padding: 0.5rem 0.75rem; }
ul.tiles b { display: block; font-size: 1.3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: break-word; }
@media (max-width: 40rem) { th, td { padding: 0.25rem 0.3rem; font-size: 0.9rem; } }
th button { all: unset; cursor: pointer; color: var(--accent); font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; }
.sheet figure { margin: 0; font-size: 0.9rem; line-height: 1.35; }
.sheet img { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel);
  border-radius: 0.4rem; }
img.plot { display: block; max-width: 100%; height: auto; border-radius: 0.4rem; }
.scroll img.plot { max-width: max(100%, 30rem); }
summary { cursor: pointer; color: var(--accent); padding: 0.5rem 0; }
"""

SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.ariaSort ? head.ariaSort !== "ascending" : head.className === "text";
    const value = row => row.cells[column].dataset.value;
    const compare = (a, b) => head.className === "text" ? a.localeCompare(b) : a - b;
    const rows = [...table.tBodies[0].rows];
    const known = rows.filter(row => value(row) !== "");
    const unknown = rows.filter(row => value(row) === "");
    known.sort((a, b) => compare(value(a), value(b)) * (up ? 1 : -1));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...known, ...unknown);
  }));
}
"""
