// Sorting, which every table with buttons in its head shares.

// The rows by a column's data-v; what is not known comes last, whichever way.
function ordered(rows, at, kind, dir) {
  const sign = dir === "up" ? 1 : -1;
  return [...rows].sort((a, b) => {
    const [x, y] = [a.cells[at]?.dataset.v ?? "", b.cells[at]?.dataset.v ?? ""];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (kind === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
  });
}

// A button in each head: first the likelier direction, then the other, then the grid's own order.
function sortable(heads, state, changed) {
  heads.forEach((head, i) => {
    head.id = `col${i}`;
    const label = $(".h", head), button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = label.textContent;
    label.replaceWith(button);
    button.addEventListener("click", () => {
      const first = head.dataset.kind === "number" ? "down" : "up";
      if (state.sort !== head.id) Object.assign(state, { sort: head.id, dir: first });
      else if (state.dir === first) state.dir = first === "up" ? "down" : "up";
      else state.sort = "";
      changed();
    });
  });
}

function arrange(body, order, heads, state) {
  const at = heads.findIndex((head) => head.id === state.sort);
  heads.forEach((head, i) => {
    head.setAttribute("aria-sort", i !== at ? "none" : state.dir === "up" ? "ascending" : "descending");
  });
  body.append(...(at < 0 ? order : ordered(order, at, heads[at].dataset.kind, state.dir)));
}
