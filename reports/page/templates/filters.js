// Filters: controls and words, all of which must match. Tables, figures and runs follow them.
const controls = document.getElementById("controls");
const filter = document.getElementById("filter");
const selects = controls ? [...controls.querySelectorAll("select")] : [];
const seedsOf = run => run.seeds.split("/")[0];
const haystacks = [];
const haystack = i => haystacks[i] ??= (run => [run.key, text(run.row), run.outcome, run.seeds, whatOf(run), text(run.what), run.message || "",
  run.also === undefined ? "" : text(run.also), run.synthetic ? "synthetic" : ""].join(" ").toLowerCase())(page.runs[i]);
const wordsIn = where => filters.words.every(word => where.includes(word));
const filters = {
  chosen: {}, words: [], left: new Set(),
  // Whether what is about these values (a table, a figure, a group) is shown; what it says nothing about does not hide it.
  shows(about) { return ["row", "task", "ratio", "protocol"].every(name => !this.chosen[name] || about[name] === undefined || about[name] === this.chosen[name]); },
  // A point stands for a run, by its number, or for a group, by its id.
  showsPoint(point) {
    if (point === null) return true;
    if (typeof point === "number") return this.left.has(point);
    const group = groupsById.get(point);
    return !group || this.shows(group);
  },
  showsRun(i) {
    const run = page.runs[i], group = run.group === null ? {} : page.groups[run.group];
    const own = { row: text(run.row), outcome: run.outcome, seed: seedsOf(run), task: group.task || "", ratio: group.ratio || "", protocol: group.protocol || "" };
    return Object.entries(this.chosen).every(([name, value]) => !value || own[name] === value) && wordsIn(haystack(i));
  },
};
const groupsById = new Map(page.groups.map(group => [group.id, group]));

const markEmpty = table => {
  const empty = [...table.tBodies[0].rows].every(row => row.hidden);
  let note = table.nextElementSibling;
  if (!note && empty) table.after(note = element("p", "No row matches the filters.", { class: "empty" }));
  if (note) note.hidden = !empty;
  table.hidden = empty;
};
const filterTables = () => {
  for (const part of document.querySelectorAll("section[data-task], figure[data-task]")) part.hidden = !filters.shows({ ...part.dataset });
  for (const cell of document.querySelectorAll("[data-group]")) cell.hidden = !filters.shows(groupsById.get(cell.dataset.group) ?? {});
  for (const table of document.querySelectorAll("table.matrix")) {
    const shown = [...table.tHead.rows[1].cells].slice(1).map(cell => !cell.hidden);
    let at = 0;
    for (const head of [...table.tHead.rows[0].cells].slice(1)) {
      head.dataset.span ??= head.colSpan;
      const count = shown.slice(at, at += Number(head.dataset.span)).filter(Boolean).length;
      head.hidden = !count;
      if (count) head.colSpan = count;
    }
  }
  for (const table of document.querySelectorAll("table.sortable, table.matrix")) {
    const title = `${table.dataset.name} ${table.closest("section").querySelector("h2").textContent}`;
    for (const row of table.tBodies[0].rows) row.hidden = !(filters.shows({ row: row.dataset.row }) && wordsIn(`${title} ${row.textContent}`.toLowerCase()));
    markEmpty(table);
  }
};
const apply = () => {
  for (const select of selects) filters.chosen[select.dataset.by] = select.value;
  filters.words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = page.runs.map((run, i) => i).filter(i => filters.showsRun(i));
  filters.left = new Set(found);
  document.getElementById("count").textContent = `${found.length} of ${page.runs.length} runs`;
  listRuns(found);
  filterTables();
  redraw();
};
const changed = () => {
  apply();
  setState({ ...filters.chosen, words: filter.value.trim(), run: "" });
};
const goTo = id => {
  const target = document.getElementById(id);
  if (!target) return;
  setState({ at: id });
  target.scrollIntoView();
};
const fillSelects = () => {
  const values = { row: page.runs.map(run => text(run.row)), outcome: page.runs.map(run => run.outcome), seed: page.runs.map(seedsOf) };
  for (const name of ["task", "ratio", "protocol"]) values[name] = page.groups.map(group => group[name]);
  for (const select of selects) {
    const options = [...new Set(values[select.dataset.by])].filter(Boolean);
    if (select.dataset.by === "seed") options.sort(inOrder);
    for (const value of options) select.append(element("option", value, { value }));
    select.closest("label").hidden = options.length < 2;
  }
};
// Read the address: a key alone opens its run, a section's id alone goes there, anything else is the state.
const follow = () => {
  const hash = decodeURIComponent(location.hash.slice(1));
  if (hash && !hash.includes("=")) {
    if (runOf(hash) >= 0) openRun(hash); else goTo(hash);
    return;
  }
  for (const name of [...state.keys()]) state.delete(name);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) state.set(name, value);
  for (const select of selects) select.value = state.get(select.dataset.by) ?? "";
  for (const select of selects) if (select.selectedIndex < 0) select.value = "";
  filter.value = state.get("words") ?? "";
  compared = (state.get("compare") ?? "").split(",").map(runOf).filter(i => i >= 0).slice(-2);
  const run = state.get("run"); // opening a page of the list must not lose it
  apply();
  showCompared();
  if (state.get("at")) document.getElementById(state.get("at"))?.scrollIntoView();
  if (run) openRun(run);
};
if (list) {
  fillSelects();
  if (matchMedia("(max-width: 60rem)").matches) document.querySelector("#contents details").open = false;
  for (const select of selects) select.addEventListener("change", changed);
  filter.addEventListener("input", changed);
  controls.addEventListener("submit", event => event.preventDefault());
  document.getElementById("clear").addEventListener("click", () => { for (const input of [...selects, filter]) input.value = ""; changed(); });
  document.addEventListener("click", event => {
    const link = event.target.closest?.("a[href^='#']");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault(); // a link within the page keeps its state
    goTo(decodeURIComponent(link.getAttribute("href").slice(1)));
  });
  apply();
  addEventListener("hashchange", follow);
  follow();
}
plots.forEach(place => sight.observe(place));
