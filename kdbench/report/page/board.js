// Sorts and filters the table, and keeps that in the address.
const board = $("#board"), form = $("#filters");
const FILTERS = ["q", "family", "data", "pair", "arch", "seeds", "top"];
const state = { sort: "", dir: "", cell: "" };
const body = board.tBodies[board.tBodies.length - 1];
const lines = $$("tr", board).filter((tr) => tr.parentNode !== board.tHead);
const order = [...body.rows];
const heads = [...board.tHead.rows[0].cells];

function control(name) { return form.elements.namedItem(name); }
function wanted(name) {
  const one = control(name);
  return one.type === "checkbox" ? (one.checked ? "1" : "") : one.value.trim();
}

// --- the address ---

function read() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) return;
  const told = new URLSearchParams(hash);
  for (const name of FILTERS) {
    const one = control(name), value = told.get(name) || "";
    if (one.type === "checkbox") one.checked = value === "1";
    else one.value = one.tagName !== "SELECT" || [...one.options].some((o) => o.value === value) ? value : "";
  }
  state.sort = heads.some((head) => head.id === told.get("sort")) ? told.get("sort") : "";
  state.dir = told.get("dir") === "up" ? "up" : "down";
  state.cell = told.get("cell") || "";
}

function write() {
  const told = new URLSearchParams();
  if (state.sort) { told.set("sort", state.sort); told.set("dir", state.dir); }
  for (const name of FILTERS) if (wanted(name)) told.set(name, wanted(name));
  if (state.cell) told.set("cell", state.cell);
  const hash = told.toString();
  // Some browsers refuse this for files; the page then works without an address of its state.
  try { history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search); } catch { }
}

// --- filters ---

function apply() {
  const q = wanted("q").toLowerCase(), family = wanted("family"), least = Number(wanted("seeds")) || 0;
  const shown = heads.map((head) => head.dataset.pair === undefined || (
    (!wanted("pair") || head.dataset.pair === wanted("pair"))
    && (!wanted("arch") || head.dataset.arch === wanted("arch"))
    && (!wanted("data") || head.dataset.data === wanted("data"))));
  heads.forEach((head, i) => { head.hidden = !shown[i]; });
  let methods = 0;
  for (const line of lines) {
    const base = line.parentNode !== body;
    let some = false;
    [...line.cells].forEach((cell, i) => {
      cell.hidden = !shown[i];
      if (heads[i].dataset.pair === undefined) return;
      const few = Number(cell.dataset.n) < least;
      cell.classList.toggle("few", few && !base);
      const fits = !few && (!wanted("top") || cell.classList.contains("best"));
      some ||= shown[i] && fits;
    });
    const fits = line.cells[0].dataset.v.toLowerCase().includes(q) && (!family || line.dataset.family === family);
    const narrow = least > 0 || wanted("top");
    line.hidden = !base && !(fits && (some || !narrow));
    if (!base && !line.hidden) methods += 1;
  }
  const pairs = heads.filter((head) => head.dataset.pair !== undefined);
  const visible = pairs.filter((head) => !head.hidden).length;
  $("#count").textContent = `${methods} of ${order.length} methods, ${visible} of ${pairs.length} pairs`;
}

// --- sorting ---

function sort() { arrange(body, order, heads, state); }
sortable(heads, state, () => { sort(); write(); });

// --- keys: arrows go from cell to cell ---

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
for (const table of $$("table.board, table.map")) table.addEventListener("keydown", (event) => arrows(event, table));

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => { apply(); write(); });
form.addEventListener("reset", () => setTimeout(() => {
  state.sort = "";
  sort();
  apply();
  write();
}));
