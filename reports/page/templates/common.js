// Everything here is drawn from the data in the page; what came out of a container only ever becomes text.
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const element = (name, text, attributes = {}) => {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const rowOf = (cells, kind = "td") => {
  const row = element("tr");
  for (const cell of cells) row.append(cell instanceof Node ? cell : element(kind, cell));
  return row;
};
const text = index => page.texts[index];

// The state of the page is the part of its address after the #: filters, order, place, open run, runs to compare.
const state = new URLSearchParams();
const setState = changes => {
  for (const [name, value] of Object.entries(changes)) if (value) state.set(name, value); else state.delete(name);
  history.replaceState(null, "", `#${state}`);
};

// Tables sort by a column. A cell is a number where it begins with one; names have digits too.
const number = text => { const m = text.match(/^(?:about )?[<+±]?(-?\d[\d,]*(?:\.\d+)?)/); return m ? parseFloat(m[1].replaceAll(",", "")) : NaN; };
const inOrder = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? -1 : 1; // dashes and words, then numbers
  return x - y || a.localeCompare(b);
};
// Make the heads of a table buttons. `sort` is called with the column and the direction (1 or -1).
const sortable = (table, sort, last = 0) => {
  const heads = [...table.tHead.rows[0].cells].slice(0, last || undefined);
  heads.forEach((head, column) => {
    const button = element("button", head.textContent, { type: "button", title: "sort by this column" });
    head.replaceChildren(button);
    head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(column, up ? 1 : -1);
    });
  });
};
for (const table of document.querySelectorAll("table.sortable")) sortable(table, (column, direction) => {
  const key = row => row.cells[column].textContent;
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => direction * inOrder(key(a), key(b))));
});

// Downloads: tables as CSV, figures as pictures.
const save = (name, href) => element("a", null, { href, download: name }).click();
const slug = text => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const csvCell = value => {
  const safe = /^([=@\t\r]|[+-](?=.*[A-Za-z(|!]))/.test(value) ? `'${value}` : value; // no formula for a spreadsheet
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const saveCsv = (name, rows) => {
  const url = URL.createObjectURL(new Blob([rows.map(row => row.map(csvCell).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  save(`${slug(name)}.csv`, url);
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};
const seenText = cell => {
  const copy = cell.cloneNode(true);
  for (const spoken of copy.querySelectorAll(".sr")) spoken.remove(); // for screen readers alone
  return copy.textContent.trim();
};
const shownRows = table => [...table.rows].filter(row => !row.hidden).map(row => [...row.cells].filter(cell => !cell.hidden).map(seenText));
const downloadButton = (label, name, act) => {
  const button = element("button", label, { type: "button", class: "download noprint", "aria-label": `download ${name} as ${label}` });
  button.addEventListener("click", act);
  return button;
};
for (const table of document.querySelectorAll("table.sortable, table.matrix")) {
  const { name } = table.dataset;
  table.closest(".wide").after(downloadButton("CSV", name, () => saveCsv(name, shownRows(table))));
}
