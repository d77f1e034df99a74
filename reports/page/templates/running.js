// Curves of the stages that run, asked of the server that a watch runs. A page from a file has no server.
const running = document.getElementById("running");
const RUNNING_MS = 5000;
const say = words => { const place = running.querySelector("[role=status]"); if (place.textContent !== words) place.textContent = words; };
const curvePlace = title => {
  const area = running.querySelector(".curves");
  const known = [...area.querySelectorAll(".plot")].find(place => place.dataset.name === title);
  if (known) return known;
  const figure = element("figure"), place = element("div", null, { class: "plot", role: "group", "aria-label": title, "data-name": title });
  place.dataset.figure = page.figures.push(null) - 1;
  figure.append(place, element("figcaption", title, { class: "soft" }));
  area.append(figure);
  plots.push(place);
  return place;
};
const showRunning = ({ stages, figures, colours }) => {
  Object.assign(page.colours, colours);
  say(stages.length ? `${stages.length} ${stages.length === 1 ? "stage runs" : "stages run"}.` : "No stage runs.");
  running.querySelector(".wide").hidden = !stages.length;
  running.querySelector("tbody").replaceChildren(...stages.map(stage => rowOf(stage)));
  const titles = new Set(figures.map(figure => figure.title));
  for (const place of running.querySelectorAll(".plot")) place.parentElement.hidden = !titles.has(place.dataset.name);
  for (const figure of figures) {
    const place = curvePlace(figure.title);
    page.figures[place.dataset.figure] = figure;
    draw(place);
  }
};
const writtenAt = Date.parse(document.lastModified); // when the report was written that this page shows
const askRunning = async () => {
  const [stages, report] = await Promise.all([fetch("running.json").then(answer => answer.json()), fetch("index.html", { method: "HEAD" })])
    .catch(() => [null, null]);
  if (stages === null) say("The server of this page does not respond; the curves show its last answer. Run bench report --watch --serve again.");
  else {
    showRunning(stages);
    if (Date.parse(report.headers.get("Last-Modified")) !== writtenAt) say("The report has changed since this page was opened: reload the page.");
  }
  setTimeout(askRunning, RUNNING_MS);
};
if (running && location.protocol.startsWith("http")) askRunning();
