// Figures are drawn when they come into sight, in the colours of the theme, and show what the filters leave.
const dark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const themed = colour => page.colours[colour] ? page.colours[colour][dark.matches && !printing ? 1 : 0] : colour;
// The parts of a trace with themed colours and without the points that the filters hide.
const shownTrace = trace => {
  const shown = { ...trace, visible: trace.meta === "key" || filters.shows({ row: trace.name }) };
  for (const part of ["marker", "line"]) if (trace[part]?.color) shown[part] = { ...trace[part], color: themed(trace[part].color) };
  if (trace.marker?.line?.color) shown.marker.line = { ...trace.marker.line, color: themed(trace.marker.line.color) };
  if (trace.fill) shown.fillcolor = themed(trace.fillcolor);
  if (trace.customdata) shown.x = trace.x.map((x, i) => filters.showsPoint(trace.customdata[i]) ? x : null);
  return shown;
};
const draw = place => {
  place.dataset.drawn = "yes";
  const figure = page.figures[place.dataset.figure];
  const colour = printing ? "#1d2328" : getComputedStyle(document.body).color;
  const axis = { gridcolor: "#88888833", zerolinecolor: "#888888", automargin: true };
  const layout = { ...figure.layout };
  for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) layout[name] = { ...axis, ...layout[name] };
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour, size: printing ? 10 : 12 },
    margin: { l: 55, r: 10, t: 30, b: 45 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: "#808080" },
  });
  if (printing) {
    const named = figure.data.filter(trace => trace.showlegend !== false).length;  // paper does not scroll a legend
    const small = { width: 440, height: Math.max(225, 110 + 20 * named), legend: { ...layout.legend, tracegroupgap: 0 } };
    Object.assign(layout, place.closest(".main") ? { width: 920 } : small);
    for (const name of Object.keys(layout)) if (/^yaxis/.test(name)) layout[name].title = { ...layout[name].title, font: { size: 9 } };
  }
  const traces = figure.data.map(shownTrace);
  const options = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "toImage"] };
  if (place.querySelector(".plot-container")) { Plotly.react(place, traces, layout, options); return; }
  Plotly.newPlot(place, traces, layout, options);
  place.on("plotly_click", event => {
    const point = event.points[0].customdata;
    if (typeof point === "number") openRun(page.runs[point].key); else if (point) goTo(point);
  });
};
const plots = [...document.querySelectorAll(".plot")];
const redraw = () => plots.filter(place => place.dataset.drawn).forEach(draw);
const sight = new IntersectionObserver(seen => { for (const s of seen) if (s.isIntersecting) { sight.unobserve(s.target); draw(s.target); } }, { rootMargin: "300px" });
const print = on => { printing = on; plots.forEach(draw); };
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
dark.addEventListener("change", redraw);
for (const place of plots) for (const format of ["png", "svg"]) place.after(downloadButton(format.toUpperCase(), place.dataset.name, () => {
  if (!place.dataset.drawn) draw(place);
  Plotly.downloadImage(place, { format, filename: place.dataset.name, width: place.clientWidth, height: place.clientHeight, scale: 2 });
}));
for (const image of document.querySelectorAll("img.chart[data-name]")) image.after(downloadButton("PNG", image.dataset.name, () => save(`${image.dataset.name}.png`, image.src)));
