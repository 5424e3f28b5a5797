"use strict";
// Once the page stands, plotly and the charts are unpacked, and drawn, from the top, whenever nothing else is to be done; a print waits for all.
const undrawn = [];
const look = {responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]]};
async function unpack(script) {
  const bytes = Uint8Array.from(atob(script.textContent), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}
async function unpackCharts() {
  const figures = [...document.querySelectorAll("script.figure")], places = figures.map(figure => figure.previousElementSibling);
  if (!window.DecompressionStream) {
    for (const place of places) place.textContent = "Charts need a browser of 2023 or later; the tables hold the same numbers.";
    return;
  }
  const plotly = document.createElement("script");
  const [text, ...contents] = await Promise.all([document.getElementById("plotly"), ...figures].map(unpack));
  plotly.textContent = text;
  document.head.append(plotly);  // runs at once
  contents.forEach((content, place) => undrawn.push([places[place], content]));
  later();
}
function drawNext() {
  if (!undrawn.length) return;
  const [place, content] = undrawn.shift(), {data, layout} = JSON.parse(content);
  Plotly.newPlot(place, data, layout, look);
  later();
}
const later = () => undrawn.length && (window.requestIdleCallback ?? setTimeout)(drawNext);
window.addEventListener("beforeprint", () => { while (undrawn.length) drawNext(); });
window.addEventListener("load", () => setTimeout(unpackCharts));
// A click on a column's title sorts the encoders by it, the best first; another click turns the order round.
for (const button of document.querySelectorAll(".board thead button")) {
  button.addEventListener("click", () => {
    const title = button.closest("th"), body = title.closest("table").tBodies[0];
    const was = title.getAttribute("aria-sort");
    const rising = was ? was === "descending" : title.dataset.first === "ascending";
    for (const other of title.parentElement.children) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = row => row.cells[title.cellIndex].dataset.value ?? "";
    const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    const known = [...body.rows].filter(row => key(row) !== ""), unknown = [...body.rows].filter(row => key(row) === "");
    known.sort((one, other) => (rising ? 1 : -1) * compare(key(one), key(other)));
    body.append(...known, ...unknown);
  });
}
// A name, or a part that one video alone has, shows the ribbons of that video.
const search = document.getElementById("ribbon-search"), ribbons = document.getElementById("chart-ribbons");
search.addEventListener("input", () => {
  const videos = [...search.list.options].map(option => option.value), wanted = search.value.trim().toLowerCase();
  const found = videos.filter(video => video.toLowerCase().includes(wanted));
  const exact = found.filter(video => video.toLowerCase() === wanted);
  const video = exact.length === 1 ? exact[0] : found.length === 1 ? found[0] : null;
  document.getElementById("ribbon-found").textContent =
    wanted === "" || video ? "" : found.length ? `${found.length} videos` : "no such video";
  if (wanted === "" || video === null) return;
  while (!ribbons.layout && undrawn.length) drawNext();
  if (!ribbons.layout) return;  // not unpacked yet
  const index = videos.indexOf(video), [data, layout] = ribbons.layout.updatemenus[0].buttons[index].args;
  Plotly.update(ribbons, data, {...layout, "updatemenus[0].active": index});
});
// What is wider than its place is scrolled by the keyboard too.
const widths = new ResizeObserver(entries => {
  for (const {target} of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".scroll")) widths.observe(box);
