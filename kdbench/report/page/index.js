// Searching the list of grids.
const cards = $$("#grids > li"), form = $("#filters");
if (form) {
  const search = () => {
    const q = form.elements.namedItem("q").value.trim().toLowerCase();
    for (const card of cards) card.hidden = !card.textContent.toLowerCase().includes(q);
    $("#count").textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} grids`;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", search);
  search();
}
