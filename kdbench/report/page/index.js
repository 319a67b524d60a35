// Sorting and searching of the list of grids.
const grids = $("#grids");
if (grids) {
  const body = grids.tBodies[0], order = [...body.rows], heads = [...grids.tHead.rows[0].cells];
  const state = { sort: "", dir: "" }, form = $("#filters");
  const arrangeAll = () => arrange(body, order, heads, state);
  const search = () => {
    const q = form.elements.namedItem("q").value.trim().toLowerCase();
    for (const row of order) row.hidden = !row.textContent.toLowerCase().includes(q);
    $("#count").textContent = `${order.filter((row) => !row.hidden).length} of ${order.length} grids`;
  };
  sortable(heads, state, arrangeAll);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", search);
  arrangeAll();
  search();
}
