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

// Tables sort by a column.
// A cell is a number where it begins with one; names have digits too.
const number = text => { const m = text.match(/^(?:about )?[<+±]?(-?\d[\d,]*(?:\.\d+)?)/); return m ? parseFloat(m[1].replaceAll(",", "")) : NaN; };
const inOrder = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? -1 : 1; // dashes and words, then numbers
  return x - y || a.localeCompare(b);
};
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "sort by this column";
    const sort = () => {
      const up = head.dataset.up !== "yes";
      head.dataset.up = up ? "yes" : "no";
      const key = row => row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const order = inOrder(key(a), key(b));
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", e => { if (e.key === "Enter") sort(); });
  });
}

// Figures are drawn when they come into sight.
const ink = () => getComputedStyle(document.body).color;
const draw = place => {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const figure = page.figures[place.dataset.figure];
  const axis = { gridcolor: "#88888833", zerolinecolor: "#88888866", automargin: true };
  const layout = {
    ...figure.layout, xaxis: { ...axis, ...figure.layout.xaxis }, yaxis: { ...axis, ...figure.layout.yaxis },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), size: 12 },
    margin: { l: 55, r: 10, t: 24, b: 45 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: "#888888" },
  };
  Plotly.newPlot(place, figure.data, layout, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
  place.on("plotly_click", event => { const key = event.points[0].customdata; if (key) location.hash = key; });
};
const plots = [...document.querySelectorAll(".plot")];
const sight = new IntersectionObserver(seen => { for (const s of seen) if (s.isIntersecting) { sight.unobserve(s.target); draw(s.target); } }, { rootMargin: "300px" });
plots.forEach(place => sight.observe(place));
addEventListener("beforeprint", () => plots.forEach(draw));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const place of plots) if (place.dataset.drawn) Plotly.relayout(place, { "font.color": ink() });
});

// Runs: as many rows as anybody reads, and what is known about one when it is asked for.
const most = 200;
const list = document.getElementById("runs");
const filter = document.getElementById("filter");
const text = index => page.texts[index];
const words = run => [run.key, run.method, run.outcome, run.seeds, text(run.what), run.message || "",
  text(run.also), run.synthetic ? "synthetic" : ""].join(" ").toLowerCase();
let wanted = ""; // the run that a link asks for, shown beside those that the filter finds
const svg = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const curveOf = ([steps, values]) => {
  const [width, height, left, foot] = [340, 170, 34, 20];
  const top = Math.max(...values, 1), last = Math.max(...steps, 1);
  const x = s => left + (width - left - 6) * s / last, y = v => height - foot - (height - foot - 8) * v / top;
  const picture = svg("svg", { width, height, role: "img", "aria-label": "validation curve" });
  const label = (value, at, anchor) => {
    const made = svg("text", { x: at[0], y: at[1], "font-size": 11, fill: "currentColor", "text-anchor": anchor });
    made.textContent = value;
    picture.append(made);
  };
  picture.append(svg("path", { d: `M${left} 4V${height - foot}H${width - 4}`, stroke: "currentColor", fill: "none", opacity: .5 }));
  picture.append(svg("polyline", { points: steps.map((s, i) => `${x(s)},${y(values[i])}`).join(" "), fill: "none", stroke: "#0072B2", "stroke-width": 2 }));
  label(top.toFixed(1), [left - 4, 14], "end"); label("0", [left - 4, height - foot], "end");
  label(`${last} steps`, [width - 6, height - 6], "end"); label("score (%), test split, not used to choose", [left + 6, height - 6], "start");
  return picture;
};
// How each class was predicted, in per cent of its labels; numbers carry what the shade does.
const matrixOf = (found, names) => {
  const level = found.level === "point" ? "points" : "voxels";
  const label = `Confusion matrix, ${found.of} checkpoint: of the ${level} of each labelled class (row) the per cent predicted as each class (column)`;
  const table = element("table", null, { class: "confusion", "aria-label": label });
  const head = element("tr");
  head.append(element("td"));
  for (const name of names) { const cell = element("th", null, { scope: "col" }); cell.append(element("span", name)); head.append(cell); }
  table.append(element("thead")); table.tHead.append(head);
  const body = element("tbody");
  found.rows.forEach((shares, i) => {
    const row = element("tr"), total = found.totals[i];
    row.append(element("th", names[i], { scope: "row", title: `${total.toLocaleString("en")} labelled ${level}` }));
    shares.forEach((share, j) => {
      if (!total) { row.append(element("td", "-", { class: "none", title: `labelled ${names[i]}: no ${level}` })); return; }
      const cell = element("td", Math.round(share / 10), { title: `labelled ${names[i]}, predicted ${names[j]}: ${(share / 10).toFixed(1)} % of ${total.toLocaleString("en")} ${level}` });
      cell.style.setProperty("--share", `${share / 10}%`);
      cell.className = (share < 5 ? "none" : "some") + (i === j ? " right" : "");
      row.append(cell);
    });
    body.append(row);
  });
  table.append(body);
  const wide = element("div", null, { class: "wide", tabindex: "0", role: "region", "aria-label": "confusion matrix" });
  wide.append(element("p", label, { class: "soft" }), table);
  return wide;
};
const detailsOf = run => {
  const cell = element("td", null, { colspan: 6 });
  if (run.synthetic) cell.append(element("p", "SYNTHETIC DATA", { class: "mark" }));
  if (run.message) cell.append(element("pre", run.message, { class: "bad" }));
  for (const warning of run.warnings || []) cell.append(element("p", warning, { class: "mark" }));
  const columns = element("div", null, { class: "columns" });
  const facts = element("table");
  for (const [name, value] of run.facts) facts.append(rowOf([element("th", text(name)), element("td", text(value))]));
  columns.append(facts);
  if (run.curve) columns.append(curveOf(run.curve));
  if (run.iou) {
    const table = element("table"), show = v => v === null ? "-" : v.toFixed(1);
    table.append(rowOf([`${text(run.each)} of`, "final", "selected", "best (on the test split)"], "th"));
    run.iou.forEach((values, i) => table.append(rowOf([page.classes[run.classes][i], ...values.map(show)])));
    columns.append(table);
  }
  if (run.confusion) columns.append(matrixOf(run.confusion, page.classes[run.classes]));
  cell.append(columns);
  for (const [name, uri] of run.pictures || []) {
    const figure = element("figure");
    figure.append(element("img", null, { src: uri, alt: `picture of predictions: ${name}` }), element("figcaption", name, { class: "soft" }));
    cell.append(figure);
  }
  for (const problem of run.problems || []) cell.append(element("p", problem, { class: "soft problem" }));
  if (run.log) cell.append(element("h3", "end of the log"), element("pre", run.log));
  const row = element("tr", null, { class: "details" });
  row.append(cell);
  return row;
};
const toggle = row => {
  const open = row.nextElementSibling && row.nextElementSibling.className === "details";
  if (open) row.nextElementSibling.remove(); else row.after(detailsOf(page.runs[row.dataset.run]));
  row.setAttribute("aria-expanded", open ? "false" : "true");
};
const fill = () => {
  const word = filter.value.trim().toLowerCase();
  const found = page.runs.map((run, i) => i).filter(i => word === "" || words(page.runs[i]).includes(word));
  const body = list.tBodies[0];
  body.replaceChildren();
  const rows = found.slice(0, most), far = page.runs.findIndex(run => run.key === wanted);
  if (far >= 0 && !rows.includes(far)) rows.unshift(far);
  for (const i of rows) {
    const run = page.runs[i];
    const row = rowOf([element("code", run.key), run.method, run.seeds, text(run.what), run.outcome, run.score === null ? "" : run.score.toFixed(1)].map(
      cell => { if (cell instanceof Node) { const td = element("td"); td.append(cell); return td; } return cell; }));
    row.className = "run"; row.id = run.key; row.tabIndex = 0; row.dataset.run = i;
    row.setAttribute("aria-expanded", "false");
    if (run.outcome !== "ok") row.cells[4].className = "bad";
    row.addEventListener("click", () => toggle(row));
    row.addEventListener("keydown", e => { if (e.key === "Enter") toggle(row); });
    body.append(row);
  }
  document.getElementById("shown").textContent = found.length > most ? `${most} of ${found.length} runs; the filter finds the others` : `${found.length} runs`;
  for (const row of document.querySelectorAll("table.sortable tbody tr")) row.hidden = word !== "" && !row.textContent.toLowerCase().includes(word);
};
const follow = () => {
  const key = location.hash.slice(1); // keys need no escapes
  if (!page.runs.some(run => run.key === key)) return;
  if (!document.getElementById(key)) { wanted = key; fill(); }
  const row = document.getElementById(key);
  if (row.getAttribute("aria-expanded") !== "true") toggle(row);
  row.scrollIntoView();
};
if (list) {
  filter.addEventListener("input", () => { wanted = ""; fill(); });
  fill();
  addEventListener("hashchange", follow);
  follow();
}
