"use strict";
// Tables sort by a click on a heading and filter by words or by the values of a column; figures open large.
const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
const compare = (a, b) => {
  const [x, y] = [a, b].map((text) => (text === "" ? NaN : Number(text)));
  if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b, "en", { numeric: true });
  return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y; // what is no number comes last
};

function sortable(table) {
  const body = table.tBodies[0];
  for (const heading of table.tHead.rows[0].cells) {
    if ("plain" in heading.dataset) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const column = heading.cellIndex;
      const rows = [...body.rows].sort((a, b) => (down ? -1 : 1) * compare(key(a, column), key(b, column)));
      for (const row of rows) row.classList.remove("first");
      body.append(...rows);
    });
  }
}

function filterable(table) {
  const body = table.tBodies[0], tools = document.createElement("div"), choices = [];
  tools.className = "tools";
  const labelled = (text, control) => {
    const label = document.createElement("label");
    label.append(text, control);
    tools.append(label);
    control.addEventListener("input", apply);
    return control;
  };
  const words = labelled("Filter rows", Object.assign(document.createElement("input"), { type: "search", placeholder: "any words" }));
  for (const column of table.dataset.filter.split(",").map(Number)) {
    const values = [...new Set([...body.rows].map((row) => row.cells[column].textContent.trim()))];
    if (values.length < 2) continue;
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    choices.push([column, labelled(table.tHead.rows[0].cells[column].textContent.trim(), select)]);
  }
  const count = document.createElement("output");
  tools.append(count);
  function apply() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) &&
        choices.every(([column, select]) => !select.value || row.cells[column].textContent.trim() === select.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${body.rows.length} rows`;
  }
  apply();
  table.parentElement.before(tools);
}

const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".zoom"))
  button.addEventListener("click", () => {
    const [small, large] = [button.querySelector("img"), dialog.querySelector("img")];
    large.src = small.src;
    large.alt = small.alt;
    dialog.querySelector("p").textContent = small.alt;
    dialog.showModal();
  });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
for (const table of document.querySelectorAll("table[data-filter]")) filterable(table);
for (const table of document.querySelectorAll("table[data-sort]")) sortable(table);
