// Sorting for all tables with buttons in their head.

// Sort rows by a column's data-v; unknown values come last in both directions.
function ordered(rows, column, kind, dir) {
  const sign = dir === "up" ? 1 : -1;
  return [...rows].sort((a, b) => {
    const [x, y] = [a.cells[column]?.dataset.v ?? "", b.cells[column]?.dataset.v ?? ""];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (kind === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
  });
}

// The direction that a column is sorted in first.
function firstDirection(head) {
  return head.dataset.first || (head.dataset.kind === "number" ? "down" : "up");
}

// The direction in which the page's own order sorts a column, if it does.
function ownDirection(head, state) { return state.sort ? "" : head.dataset.sorted || ""; }

// Put a button into each head; a click anywhere in the head cycles through its first direction, the opposite one and
// the order of the page.
function sortable(heads, state, changed) {
  heads.forEach((head, i) => {
    head.id = `col${i}`;
    const label = $(".h", head), button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = label.textContent;
    label.replaceWith(button);
    head.addEventListener("click", () => {
      const first = firstDirection(head), own = ownDirection(head, state);
      if (own) Object.assign(state, { sort: head.id, dir: own });
      if (state.sort !== head.id) Object.assign(state, { sort: head.id, dir: first });
      else if (state.dir === first) state.dir = first === "up" ? "down" : "up";
      else state.sort = "";
      changed();
    });
  });
}

// Put the rows into the chosen order.
function arrange(body, order, heads, state) {
  const column = heads.findIndex((head) => head.id === state.sort);
  heads.forEach((head, i) => {
    const dir = i === column ? state.dir : ownDirection(head, state);
    head.setAttribute("aria-sort", { up: "ascending", down: "descending" }[dir] || "none");
  });
  body.append(...(column < 0 ? order : ordered(order, column, heads[column].dataset.kind, state.dir)));
}
