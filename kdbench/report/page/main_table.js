// Sorting and filtering of the main table; the address keeps the state.
const table = $("#leaderboard"), form = $("#filters");
const FILTERS = ["q", "family", "data", "pair", "arch", "seeds", "top"];
const state = { sort: "", dir: "", cell: "" };
const body = table.tBodies[table.tBodies.length - 1];
const rows = $$("tr", table).filter((tr) => tr.parentNode !== table.tHead);
const order = [...body.rows];
const heads = [...table.tHead.rows[0].cells];

function control(name) { return form.elements.namedItem(name); }
function selected(name) {
  const input = control(name);
  return input.type === "checkbox" ? (input.checked ? "1" : "") : input.value.trim();
}

// --- the address ---

function read() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) return;
  const params = new URLSearchParams(hash);
  for (const name of FILTERS) {
    const input = control(name), value = params.get(name) || "";
    if (input.type === "checkbox") input.checked = value === "1";
    else input.value = input.tagName !== "SELECT" || [...input.options].some((o) => o.value === value) ? value : "";
  }
  state.sort = heads.some((head) => head.id === params.get("sort")) ? params.get("sort") : "";
  state.dir = params.get("dir") === "up" ? "up" : "down";
  state.cell = params.get("cell") || "";
}

function write() {
  const params = new URLSearchParams();
  if (state.sort) { params.set("sort", state.sort); params.set("dir", state.dir); }
  for (const name of FILTERS) if (selected(name)) params.set(name, selected(name));
  if (state.cell) params.set("cell", state.cell);
  const hash = params.toString();
  // Some browsers refuse this for local files; the page then works without it.
  try { history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search); } catch { }
}

// --- filters ---

function apply() {
  const q = selected("q").toLowerCase(), family = selected("family"), minimum = Number(selected("seeds")) || 0;
  const visible = heads.map((head) => head.dataset.pair === undefined || (
    (!selected("pair") || head.dataset.pair === selected("pair"))
    && (!selected("arch") || head.dataset.arch === selected("arch"))
    && (!selected("data") || head.dataset.data === selected("data"))));
  heads.forEach((head, i) => { head.hidden = !visible[i]; });
  let methods = 0;
  for (const row of rows) {
    const base = row.parentNode !== body;
    let any = false;
    [...row.cells].forEach((cell, i) => {
      cell.hidden = !visible[i];
      if (heads[i].dataset.pair === undefined) return;
      const few = Number(cell.dataset.n) < minimum;
      cell.classList.toggle("few", few && !base);
      const fits = !few && (!selected("top") || cell.classList.contains("best"));
      any ||= visible[i] && fits;
    });
    const fits = row.cells[0].dataset.v.toLowerCase().includes(q) && (!family || row.dataset.family === family);
    const narrow = minimum > 0 || selected("top");
    row.hidden = !base && !(fits && (any || !narrow));
    if (!base && !row.hidden) methods += 1;
  }
  const pairs = heads.filter((head) => head.dataset.pair !== undefined);
  const count = pairs.filter((head) => !head.hidden).length;
  $("#count").textContent = `${methods} of ${order.length} methods, ${count} of ${pairs.length} pairs`;
}

// --- sorting ---

function sort() { arrange(body, order, heads, state); }
sortable(heads, state, () => { sort(); write(); });

// --- keys: arrows move from cell to cell ---

function arrows(event, table) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target.closest("td");
  if (!step || !cell || event.ctrlKey || event.altKey || event.metaKey) return;
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

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => { apply(); write(); });
form.addEventListener("reset", () => setTimeout(() => {
  state.sort = "";
  sort();
  apply();
  write();
}));
