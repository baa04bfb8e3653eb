"use strict";
document.documentElement.classList.add("scripted");

// ---- the table: a click on a head sorts by its column, the better end first; blanks stay last

function sortBy(head) {
  const table = head.closest("table");
  const column = [...head.parentElement.children].indexOf(head);
  const button = head.querySelector("button");
  const opposite = { ascending: "descending", descending: "ascending" };
  const order = opposite[head.getAttribute("aria-sort")] ?? button.dataset.first;
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: row.children[column].dataset.value }));
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    if (a.value === undefined || b.value === undefined) return (a.value === undefined) - (b.value === undefined);
    return sign * (column === 0 ? a.value.localeCompare(b.value) : Number(a.value) - Number(b.value));
  });
  body.append(...rows.map(({ row }) => row));
}

for (const head of document.querySelectorAll(".numbers th[aria-sort]")) {
  head.querySelector("button").addEventListener("click", () => sortBy(head));
}

// ---- images: enlarged beside the original; arrow keys go to the next run or the next image

const dialog = document.getElementById("zoom");
const buttons = [...document.querySelectorAll("button.zoom")];
const ROWS_PER_IMAGE = 3; // the image, its crop, its errors
let shown = null;

function at(button, images, runs) {
  const { group, row, column } = button.dataset;
  const inGroup = buttons.filter((other) => other.dataset.group === group);
  if (images) {
    const wanted = String(Number(row) + ROWS_PER_IMAGE * images);
    return inGroup.find((other) => other.dataset.row === wanted && other.dataset.column === column);
  }
  const inRow = inGroup.filter((other) => other.dataset.row === row);
  return inRow[inRow.indexOf(button) + runs];
}

function original(button) {
  const { group, row, column } = button.dataset;
  if (column === "0" || group === "samples") return null;
  const inImage = (other) => other.dataset.group === group && other.dataset.column === "0";
  const inRow = buttons.find((other) => inImage(other) && other.dataset.row === row);
  return inRow ?? buttons.find((other) => inImage(other) && Number(other.dataset.row) === ROWS_PER_IMAGE * Math.floor(row / ROWS_PER_IMAGE));
}

function pane(button) {
  const figure = document.createElement("figure");
  const image = button.querySelector("img").cloneNode();
  image.loading = "eager";
  const caption = document.createElement("figcaption");
  caption.textContent = image.alt;
  figure.append(image, caption);
  return figure;
}

function show(button) {
  shown = button;
  const beside = original(button);
  dialog.querySelector(".panes").replaceChildren(...(beside ? [pane(beside)] : []), pane(button));
  dialog.querySelector(".caption").textContent = "← → from run to run" + (button.dataset.group === "samples" ? "" : ", ↑ ↓ from image to image") + ", Esc closes";
  if (!dialog.open) dialog.showModal();
}

function go(images, runs) {
  const next = shown && at(shown, images, runs);
  if (next) show(next);
}

for (const button of buttons) button.addEventListener("click", () => show(button));
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  go(...step);
});
dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.step) go(0, Number(button.dataset.step));
  else if (button || event.target === dialog) dialog.close();
});
dialog.addEventListener("close", () => shown?.focus());
