"use strict";
// Sorts a table by the column whose name was clicked: numbers first descending, texts first ascending.
function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const order = row => { const value = row.cells[column].dataset.order; return value === undefined ? null : Number(value); };
  const rows = [...body.rows], numeric = rows.some(row => order(row) !== null);
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const direction = header.getAttribute("aria-sort") === first ? other : first;
  for (const each of header.parentNode.cells) each.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    const x = order(a), y = order(b);
    if (numeric && (x === null || y === null)) return (x === null) - (y === null); // what has no number stays below
    return sign * (numeric ? x - y : a.cells[column].innerText.localeCompare(b.cells[column].innerText));
  });
  body.append(...rows);
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
