// Sorting and filtering of the main table; the address keeps the state.
const table = $("#leaderboard"), form = $("#filters");
const FILTERS = ["q", "family", "data", "pair", "arch", "seeds", "top"];
const state = { sort: "", dir: "", cell: "", row: "", picked: [] };
const body = table.tBodies[0];
const order = [...body.rows];
const isReference = (row) => row.classList.contains("base");
const heads = [...table.tHead.rows[0].cells];

// A control of the form; not every table has each of them.
function control(name) { return form.elements.namedItem(name); }
function selected(name) {
  const input = control(name);
  if (!input) return "";
  return input.type === "checkbox" ? (input.checked ? "1" : "") : input.value.trim();
}

// --- the address ---

function read() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) return;
  const params = new URLSearchParams(hash);
  for (const name of FILTERS) {
    const input = control(name), value = params.get(name) || "";
    if (!input) continue;
    if (input.type === "checkbox") input.checked = value === "1";
    else input.value = input.tagName !== "SELECT" || [...input.options].some((o) => o.value === value) ? value : "";
  }
  if (FILTERS.some((name) => control(name)?.closest(".filter") && selected(name))) unfold(true);
  state.sort = heads.some((head) => head.id === params.get("sort")) ? params.get("sort") : "";
  state.dir = params.get("dir") === "up" ? "up" : "down";
  state.cell = params.get("cell") || "";
  state.row = params.get("row") || "";
  state.picked = params.getAll("pick");
}

function write() {
  const params = new URLSearchParams();
  if (state.sort) { params.set("sort", state.sort); params.set("dir", state.dir); }
  for (const name of FILTERS) if (selected(name)) params.set(name, selected(name));
  for (const name of state.picked) params.append("pick", name);
  if (state.cell) params.set("cell", state.cell);
  else if (state.row) params.set("row", state.row);
  const hash = params.toString();
  // Some browsers refuse this for local files; the page then works without it.
  try { history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search); } catch { }
}

// --- filters ---

// Whether a name contains one of the alternatives in "a|b"; an empty search fits all.
function fitsSearch(name, search) {
  const parts = search.toLowerCase().split("|").map((part) => part.trim()).filter(Boolean);
  return !parts.length || parts.some((part) => name.toLowerCase().includes(part));
}

function apply() {
  const q = selected("q"), family = selected("family"), minimum = Number(selected("seeds")) || 0;
  const visible = heads.map((head) => head.dataset.pair === undefined || (
    (!selected("pair") || head.dataset.pair === selected("pair"))
    && (!selected("arch") || head.dataset.arch === selected("arch"))
    && (!selected("data") || head.dataset.data === selected("data"))));
  heads.forEach((head, i) => { head.hidden = !visible[i]; });
  let methods = 0;
  for (const row of order) {
    const base = isReference(row);
    let enough = !minimum;
    [...row.cells].forEach((cell, i) => {
      cell.hidden = !visible[i];
      if (heads[i].dataset.pair === undefined) return;
      const few = Number(cell.dataset.n) < minimum;
      cell.classList.toggle("few", few && !base);
      enough ||= visible[i] && !few;
    });
    const fits = fitsSearch(row.cells[0].dataset.v, q) && (!family || row.dataset.family === family);
    row.hidden = !base && !(fits && enough && (!selected("top") || row.dataset.top));
    if (!base && !row.hidden) methods += 1;
  }
  const pairs = heads.filter((head) => head.dataset.pair !== undefined);
  const count = pairs.filter((head) => !head.hidden).length, all = order.filter((row) => !isReference(row)).length;
  $("#count").textContent = `${methods} of ${all} methods, ${count} of ${pairs.length} pairs`;
}

// --- sorting ---

function sort() { arrange(body, order, heads, state); align(); }
sortable(heads, state, () => { sort(); write(); });

// --- keys: arrows move from cell to cell ---

function arrows(event, table) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target.closest("td, th");
  if (!step || !cell || event.target.type === "checkbox" || event.ctrlKey || event.altKey || event.metaKey) return;
  const rows = $$("tbody tr", table).filter((tr) => !tr.hidden);
  let r = rows.indexOf(cell.parentNode), c = cell.cellIndex;
  for (;;) {
    r += step[0];
    c += step[1];
    const next = rows[r]?.cells[c];
    if (!next) return;
    const button = !next.hidden && $("button", next);
    if (button) {
      event.preventDefault();
      button.focus();
      return;
    }
  }
}
for (const table of $$("table.leaderboard, table.map")) table.addEventListener("keydown", (event) => arrows(event, table));

// Narrow screens fold the filters.
function unfold(all) {
  form.classList.toggle("all", all);
  $("#unfold").setAttribute("aria-expanded", String(all));
}
$("#unfold").addEventListener("click", () => unfold(!form.classList.contains("all")));

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => { apply(); write(); });
form.addEventListener("reset", () => setTimeout(() => {
  state.sort = "";
  sort();
  apply();
  write();
}));
