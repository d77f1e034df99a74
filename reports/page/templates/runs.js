// Runs: a page of rows at a time, and what is known about one when it is opened.
const perPage = 100;
const list = document.getElementById("runs");
const shortLength = (() => { // letters of a key that no two runs share
  const keys = page.runs.map(run => run.key).sort();
  let length = 8;
  for (let i = 1; i < keys.length; i++) while (keys[i].slice(0, length) === keys[i - 1].slice(0, length) && length < keys[i].length) length++;
  return length;
})();
const short = key => key.slice(0, shortLength);
const runOf = key => key && key.length >= 8 ? page.runs.findIndex(run => run.key.startsWith(key)) : -1;
const whatOf = run => run.group === null ? text(run.what) : page.groups[run.group].title;
const svg = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const CURVE_LOOKS = [["#0072B2", ""], ["#D55E00", "5 3"]];
const curvesOf = runs => {
  const [width, height, left, foot] = [340, 170, 34, 20];
  const top = Math.max(1, ...runs.flatMap(run => run.curve[1])), last = Math.max(1, ...runs.flatMap(run => run.curve[0]));
  const x = s => left + (width - left - 6) * s / last, y = v => height - foot - (height - foot - 8) * v / top;
  const picture = svg("svg", { width, height, role: "img", "aria-label": `validation curve of ${runs.map(run => short(run.key)).join(" and ")}` });
  const label = (value, at, anchor, fill = "currentColor") => {
    const made = svg("text", { x: at[0], y: at[1], "font-size": 11, fill, "text-anchor": anchor });
    made.textContent = value;
    picture.append(made);
  };
  picture.append(svg("path", { d: `M${left} 4V${height - foot}H${width - 4}`, stroke: "currentColor", fill: "none", opacity: .5 }));
  runs.forEach((run, i) => {
    const [steps, values] = run.curve, [stroke, dash] = CURVE_LOOKS[i];
    picture.append(svg("polyline", { points: steps.map((s, k) => `${x(s)},${y(values[k])}`).join(" "), fill: "none", stroke: themed(stroke), "stroke-dasharray": dash, "stroke-width": 2 }));
    if (runs.length > 1) label(`${short(run.key)} (${dash ? "dashed" : "line"})`, [width - 8, height - foot - 8 - 14 * i], "end");
  });
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
  const cell = element("td", null, { colspan: 7 });
  if (run.synthetic) cell.append(element("p", "SYNTHETIC DATA", { class: "mark" }));
  if (run.message) cell.append(element("pre", run.message, { class: "bad" }));
  for (const warning of run.warnings || []) cell.append(element("p", warning, { class: "mark" }));
  const columns = element("div", null, { class: "columns" });
  const facts = element("table");
  for (const [name, value] of run.facts) facts.append(rowOf([element("th", text(name)), element("td", text(value))]));
  columns.append(facts);
  if (run.curve) columns.append(curvesOf([run]));
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
const toggle = (row, open = row.nextElementSibling?.className !== "details") => {
  const details = row.nextElementSibling?.className === "details" ? row.nextElementSibling : null;
  if (open === Boolean(details)) return;
  if (details) details.remove(); else row.after(detailsOf(page.runs[row.dataset.run]));
  row.querySelector("button").setAttribute("aria-expanded", open);
  setState({ run: open ? short(page.runs[row.dataset.run].key) : "" });
};
const rowOfRun = i => {
  const run = page.runs[i];
  const key = element("td"), button = element("button", short(run.key), { type: "button", "aria-expanded": "false", title: run.key });
  key.append(button);
  const pick = element("input", null, { type: "checkbox", "aria-label": `compare run ${short(run.key)}` });
  pick.checked = compared.includes(i);
  pick.addEventListener("change", () => compare(i, pick.checked));
  const last = element("td", null, { class: "noprint" });
  last.append(pick);
  const row = rowOf([key, text(run.row), run.seeds, whatOf(run), run.outcome, run.score === null ? "" : run.score.toFixed(1), last]);
  row.className = "run"; row.id = run.key; row.dataset.run = i;
  if (run.outcome !== "ok") row.cells[4].className = "bad";
  row.addEventListener("click", event => { if (event.target !== pick) toggle(row); });
  return row;
};

// The list: those that the filters leave, in the order of a column, a page at a time.
const sortKeys = [run => run.key, run => text(run.row), run => run.seeds, whatOf, run => run.outcome, run => run.score === null ? "" : String(run.score)];
let matched = [], first = 0, order = null;
const fill = () => {
  list.tBodies[0].replaceChildren(...matched.slice(first, first + perPage).map(rowOfRun));
  if (!matched.length) list.tBodies[0].append(rowOf([element("td", "No run matches the filters.", { colspan: 7 })]));
  const end = Math.min(first + perPage, matched.length);
  document.getElementById("shown").textContent = matched.length ? `${first + 1} to ${end} of ${matched.length} runs` : "0 runs";
  document.getElementById("earlier").disabled = first === 0;
  document.getElementById("later").disabled = end === matched.length;
};
const arrange = () => {
  if (!order) return;
  const keys = new Map(matched.map(i => [i, sortKeys[order.column](page.runs[i])]));
  matched.sort((a, b) => order.direction * inOrder(keys.get(a), keys.get(b)) || a - b);
};
const listRuns = found => { matched = found; first = 0; arrange(); fill(); };
const openRun = key => {
  const i = runOf(key);
  if (i < 0) return;
  if (!matched.includes(i)) { matched.unshift(i); first = 0; fill(); } // a link shows its run beside those that the filters leave
  const at = Math.floor(matched.indexOf(i) / perPage) * perPage;
  if (at !== first) { first = at; fill(); }
  const row = document.getElementById(page.runs[i].key);
  toggle(row, true);
  row.scrollIntoView();
};

// Two runs side by side: what differs between their specs and records, and their curves.
let compared = [];
const fieldsOf = run => {
  const score = run.score === null ? "-" : run.score.toFixed(2);
  const fields = [["method", text(run.row)], ["group", whatOf(run)], ["seeds", run.seeds], ["outcome", run.outcome], ["score (%)", score]];
  const spec = run.spec === undefined ? [] : page.specs[run.spec];
  return new Map([...fields, ...run.facts.map(([n, v]) => [text(n), text(v)]), ...spec.map(([n, v]) => [`spec: ${text(n)}`, text(v)])]);
};
const compare = (i, on) => {
  compared = on ? [...compared.filter(other => other !== i), i].slice(-2) : compared.filter(other => other !== i);
  setState({ compare: compared.map(one => short(page.runs[one].key)).join(",") });
  for (const box of list.querySelectorAll("tr.run")) box.querySelector("input").checked = compared.includes(Number(box.dataset.run));
  showCompared();
};
const showCompared = () => {
  const place = document.getElementById("side-by-side");
  place.hidden = compared.length !== 2;
  place.replaceChildren();
  if (place.hidden) return;
  const runs = compared.map(i => page.runs[i]), fields = runs.map(fieldsOf);
  const names = [...new Set(fields.flatMap(one => [...one.keys()]))];
  const values = name => fields.map(one => one.get(name) ?? "-");
  const same = names.filter(name => values(name)[0] === values(name)[1]);
  const tableOf = shown => {
    const table = element("table");
    table.append(element("thead"), element("tbody"));
    table.tHead.append(rowOf(["field", ...runs.map(run => short(run.key))].map(name => element("th", name, { scope: "col" }))));
    for (const name of shown) table.tBodies[0].append(rowOf([element("th", name, { scope: "row" }), ...values(name)]));
    return table;
  };
  const differing = tableOf(names.filter(name => !same.includes(name)));
  for (const row of differing.tBodies[0].rows) row.className = "differs";
  const wide = element("div", null, { class: "wide", tabindex: "0", role: "region", "aria-label": "differences of two runs" });
  wide.append(differing);
  const equal = element("details");
  equal.append(element("summary", `${same.length} fields are equal`), tableOf(same));
  place.append(element("h3", `Side by side: ${runs.map(run => short(run.key)).join(" and ")}`), wide);
  if (runs.every(run => run.curve)) place.append(curvesOf(runs));
  place.append(equal);
};
if (list) {
  const turn = by => { first = Math.max(0, first + by * perPage); fill(); };
  document.getElementById("earlier").addEventListener("click", () => turn(-1));
  document.getElementById("later").addEventListener("click", () => turn(1));
  sortable(list, (column, direction) => { order = { column, direction }; first = 0; arrange(); fill(); }, sortKeys.length);
  list.closest(".wide").after(downloadButton("CSV", "runs", () => saveCsv("runs", [
    ["key", "method", "seeds", "group", "outcome", "score (%)"], ...matched.map(i => [page.runs[i].key, ...sortKeys.slice(1).map(key => key(page.runs[i]))])])));
}
