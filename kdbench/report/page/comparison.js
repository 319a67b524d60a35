// Comparison of the picked rows: differences, learning curves and seeds side by side.
const COLOURS = 6;
const pickedBar = $("#picked"), comparison = $("#comparison");

// --- picking ---

function picks() { return $$(".pick", body); }
function nameOf(box) { return data.rows[Number(box.value)].name; }

// Check the boxes of the rows in the state, and show the comparison of two rows or more.
function compare() {
  if (!comparison) return;
  const names = picks().map(nameOf);
  state.picked = [...new Set(state.picked)].filter((name) => names.includes(name)).slice(0, COLOURS);
  const full = state.picked.length >= COLOURS;
  for (const box of picks()) {
    box.checked = state.picked.includes(nameOf(box));
    box.disabled = full && !box.checked;
  }
  fillBar(full);
  comparison.hidden = state.picked.length < 2;
  $("#comparison-body").replaceChildren();
  if (!comparison.hidden) fillComparison(state.picked.map(methodOf).filter(Boolean));
}

function fillBar(full) {
  pickedBar.hidden = !state.picked.length;
  const text = element("span", `${full ? "At most " : ""}${state.picked.length} picked: ${state.picked.join(", ")}`);
  text.setAttribute("role", "status");
  const jump = element("button", "Compare"), clear = element("button", "Clear");
  jump.type = clear.type = "button";
  jump.disabled = state.picked.length < 2;
  jump.addEventListener("click", () => { comparison.scrollIntoView(); $("#comparison-title").focus(); });
  clear.addEventListener("click", () => { state.picked = []; compare(); write(); });
  pickedBar.replaceChildren(text, jump, clear);
}

if (comparison) {
  body.addEventListener("change", (event) => {
    if (!event.target.classList.contains("pick")) return;
    const own = nameOf(event.target);
    state.picked = event.target.checked ? [...state.picked, own] : state.picked.filter((name) => name !== own);
    compare();
    write();
  });
}

// --- differences ---

function signed(hundredths) {
  const text = (Math.abs(hundredths) / 100).toFixed(2);
  return hundredths ? (hundredths > 0 ? "+" : "\u2212") + text : text;
}

// The difference a - b of `scope`, as in comparison_data.pack: [difference, low, high, p].
function difference(scope, a, b) {
  const names = data.contrasts.rows, i = names.indexOf(a), j = names.indexOf(b), n = names.length;
  if (i < 0 || j < 0 || i === j) return null;
  const [first, last] = [Math.min(i, j), Math.max(i, j)];
  const found = scope[(first * (2 * n - first - 1)) / 2 + last - first - 1];
  if (!found || i < j) return found || null;
  const [value, low, high, p] = found;
  return low === undefined ? [-value] : [-value, -high, -low, p];
}

function differenceText(found) {
  if (!found) return "\u2013";
  const [value, low, high] = found;
  return low === undefined ? `${signed(value)}, no interval` : `${signed(value)} [${signed(low)}, ${signed(high)}]`;
}

function pText(found) {
  const p = found?.[3];
  return p === undefined ? "\u2013" : p === 0 ? "< 0.001" : (p / 1000).toFixed(3);
}

function row(table, first, texts, tag = "td") {
  const line = table.insertRow(), head = element("th", first);
  head.scope = tag === "th" ? "col" : "row";
  line.append(head);
  for (const text of texts) {
    const cell = element(tag, text);
    if (tag === "th") cell.scope = "col";
    line.append(cell);
  }
  return line;
}

function scrolling(table, label) {
  const box = element("div", null, "scroll");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  box.append(table);
  return box;
}

function differences(methods, pairs) {
  if (!data.contrasts.rows.length) {
    return element("p", "This page has too many rows to hold their differences: kdbench compare prints them.", "note");
  }
  const table = element("table"), head = table.createTHead(), lines = table.createTBody();
  const several = pairs.length > 1;
  row(head, "Difference, points [95 %]", [...(several ? ["over pairs"] : []), "adjusted p", ...pairs], "th");
  methods.forEach((one, i) => methods.slice(i + 1).forEach((other) => {
    const [a, b] = [one.name, other.name], over = difference(data.contrasts.over, a, b);
    const own = pairs.map((pair) => differenceText(difference(data.contrasts.pairs[pair] || [], a, b)));
    row(lines, `${a} \u2212 ${b}`, [...(several ? [differenceText(over)] : []), pText(over), ...own]);
  }));
  return scrolling(table, "Differences of the picked methods");
}

// --- a pair: curves and seeds ---

function seedTable(cells) {
  const seeds = [...new Set(cells.flatMap(([, cell]) => cell.runs.map(([seed]) => seed)))].sort((a, b) => a - b);
  const table = element("table"), head = table.createTHead(), lines = table.createTBody();
  row(head, "%", ["mean \u00b1 sd", ...seeds.map((seed) => `seed ${seed}`)], "th");
  for (const [i, cell] of cells) {
    const texts = seeds.map((seed) => {
      const run = cell.runs.find(([own]) => own === seed);
      return run ? run[3]?.toFixed(2) ?? run[2] : "\u2013";
    });
    const line = row(lines, cell.method, [cell.mean || "\u2013", ...texts]);
    line.cells[0].prepend(element("span", null, `key k${i}`));
  }
  return scrolling(table, "Seeds of the picked methods");
}

function overlaid(cells, late) {
  const traces = cells.flatMap(([i, cell]) => cell.runs.map((run) => run[1]).filter((id) => data.curves[id])
    .map((id) => ({ kind: `k${i}`, points: points(id).filter(([, y]) => y !== null) })));
  const drawn = traces.filter((trace) => trace.points.length);
  return drawn.length ? curve(drawn, late, 620) : null;
}

function fillComparison(methods) {
  $("#comparison-title").textContent = `Comparison: ${methods.map((method) => method.name).join(", ")}`;
  const target = $("#comparison-body");
  const pairs = heads.filter((head) => head.dataset.pair !== undefined).map((head) => head.dataset.pair);
  target.append(differences(methods, pairs));
  const box = element("input"), label = element("label", null, "zoom"), grid = element("div", null, "by-pair");
  box.type = "checkbox";
  box.checked = true;
  const parts = [];
  for (const pair of pairs) {
    const cells = methods.map((method, i) => [i, data.cells[method.cells[pair]]]).filter(([, cell]) => cell?.runs.length);
    if (!cells.length) continue;
    const part = element("div"), place = element("div");
    part.append(element("h4", pair), place, seedTable(cells));
    grid.append(part);
    parts.push([place, cells]);
  }
  const draw = () => {
    for (const [place, cells] of parts) place.replaceChildren(...[overlaid(cells, box.checked)].filter(Boolean));
  };
  draw();
  box.addEventListener("change", draw);
  label.append(box, "second half only");
  const note = `${capital(data.accuracy)} per epoch, %: one line per seed, one colour per method.`;
  if (Object.keys(data.curves).length) target.append(element("p", note, "note"), label);
  target.append(grid);
}
