"use strict";
// Each heading of a table becomes a button that sorts by its column: up, then down. Cells say by what they are sorted.

function order(row, column) {
  return row.cells[column].dataset.order;
}

function compare(a, b, isNumber) {
  return isNumber ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0;
}

function sort(heading) {
  const body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex;
  const isNumber = heading.classList.contains("number") || heading.classList.contains("time");
  const before = heading.getAttribute("aria-sort");
  // Of numbers the greatest are what one looks for first.
  const next = before === "none" ? (isNumber ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  const sign = next === "ascending" ? 1 : -1;
  const rows = [...body.rows];
  rows.sort((a, b) => sign * compare(order(a, column), order(b, column), isNumber));
  body.append(...rows);
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", next);
}

for (const heading of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sort(heading));
  heading.append(button);
  heading.setAttribute("aria-sort", "none");
}

// On paper nothing can be opened.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
