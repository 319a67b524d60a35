// Dialog with a cell's details: seeds, learning curve, cost, objective, versions, command.
const data = JSON.parse($("#data").textContent);
const dialog = $("#details");

function element(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function facts(rows) {
  const list = element("dl", null, "facts");
  for (const [name, value] of rows) list.append(element("dt", name), element("dd", value));
  return list;
}

function seeds(cell) {
  const table = element("table"), head = table.createTHead().insertRow(), rows = table.createTBody();
  const reasons = cell.runs.some((run) => run[6]);
  for (const name of ["Seed", "Last epoch, %", "Best epoch, %", "Status", "Run", ...(reasons ? ["Reason"] : [])]) {
    const heading = element("th", name);
    heading.scope = "col";
    head.append(heading);
  }
  cell.runs.forEach(([seed, id, status, last, best, epoch, reason], i) => {
    const row = rows.insertRow(), first = element("th", seed);
    first.scope = "row";
    if (data.curves[id]) first.prepend(element("span", null, `key k${i % 5}`));
    row.append(first);
    const accuracies = [last?.toFixed(2) ?? "–", best == null ? "–" : `${best.toFixed(2)} (epoch ${epoch})`];
    for (const text of [...accuracies, status, id]) row.append(element("td", text));
    if (reasons) row.append(element("td", reason, "reason"));
  });
  const box = element("div", null, "scroll");
  box.append(table);
  return box;
}

// --- the learning curve ---

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

function points(id) {
  const [first, last, text] = data.curves[id], n = text.length / 2, out = [];
  for (let i = 0; i < n; i += 1) {
    const level = 64 * ALPHABET.indexOf(text[2 * i]) + ALPHABET.indexOf(text[2 * i + 1]);
    // The epochs that curve_data.thin in Python keeps.
    const epoch = first + (n > 1 ? Math.floor((2 * i * (last - first) + n - 1) / (2 * (n - 1))) : 0);
    out.push([epoch, level === 4095 ? null : (100 * level) / 4094]);
  }
  return out;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * size).find((s) => s >= raw), out = [];
  for (let t = Math.ceil(low / step) * step; t <= high + 1e-9; t += step) out.push(Number(t.toFixed(6)));
  return out;
}

function drawing(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function traces(cell) {
  const runs = (of, kind) => of.runs.map((run, i) => [run[1], kind || `k${i % 5}`]).filter(([id]) => data.curves[id]);
  const base = data.cells[data.baselines[cell.pair]], own = runs(cell);
  const all = base && base !== cell && cell.method !== "teacher" && own.length ? [...runs(base, "other"), ...own] : own;
  return all.map(([id, kind]) => ({ kind, points: points(id).filter(([, y]) => y !== null) }));
}

// If `late`, only the second half: methods differ there, and the start would flatten the scale.
function curve(all, late) {
  const last = Math.max(...all.flatMap((trace) => trace.points.map(([x]) => x)));
  const drawn = all.map((trace) => ({ ...trace, points: trace.points.filter(([x]) => !late || x >= last / 2) }));
  const known = drawn.flatMap((trace) => trace.points);
  const [W, H, L, R, T, B] = [Math.min(688, Math.max(innerWidth - 34, 280)), 260, 44, 14, 10, 36];
  const xs = known.map(([x]) => x), ys = known.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)], [low, high] = [Math.min(...ys), Math.max(...ys)];
  const [y0, y1] = high > low ? [low, high] : [low - 1, high + 1];
  const x = (e) => L + ((W - L - R) * (e - x0)) / (x1 - x0 || 1), y = (a) => H - B - ((H - T - B) * (a - y0)) / (y1 - y0);
  const label = `Test accuracy per epoch, one line per seed, epochs ${x0} to ${x1}, from ${low.toFixed(1)} to ${high.toFixed(1)} %`;
  const svg = drawing("svg", { class: "curve", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  for (const t of ticks(y0, y1, 5)) {
    svg.append(drawing("path", { class: "axis", d: `M${L} ${y(t)}H${W - R}` }));
    svg.append(drawing("text", { x: L - 6, y: y(t) + 4, "text-anchor": "end" }, String(t)));
  }
  for (const t of ticks(x0, x1, W < 500 ? 4 : 8).filter(Number.isInteger)) {
    svg.append(drawing("text", { x: x(t), y: H - B + 16, "text-anchor": "middle" }, String(t)));
  }
  svg.append(drawing("text", { x: W - R, y: H - 4, "text-anchor": "end" }, "epoch"));
  for (const trace of drawn) {
    const d = trace.points.map(([e, a], i) => `${i ? "L" : "M"}${x(e).toFixed(1)} ${y(a).toFixed(1)}`).join("");
    if (d) svg.append(drawing("path", { class: `line ${trace.kind}`, d }));
  }
  return svg;
}

function curves(cell) {
  const all = traces(cell).filter((trace) => trace.points.length);
  if (!all.length) {
    const note = "Learning curves are left out to limit the page's size; see kdbench show RUN.";
    return data.points ? [] : [element("p", note, "note")];
  }
  let svg = curve(all, false);
  const box = element("input"), label = element("label", null, "zoom");
  box.type = "checkbox";
  box.addEventListener("change", () => {
    const next = curve(all, box.checked);
    svg.replaceWith(next);
    svg = next;
  });
  label.append(box, "second half only");
  const dashed = all.some((trace) => trace.kind === "other") ? `; dashed: ${data.baseline}` : "";
  return [element("h3", "Test accuracy per epoch, %"), svg, element("p", `One line per seed${dashed}.`, "note"), label];
}

// --- opening and closing ---

function command(text) {
  const box = document.createDocumentFragment(), pre = element("pre", text), button = element("button", "Copy");
  pre.tabIndex = 0;
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre);
      button.textContent = "Selected; press Ctrl+C";
    }
  });
  box.append(pre, button);
  return box;
}

function fill(cell) {
  $("#details-title").textContent = `${cell.method}, ${cell.pair}`;
  const body = $("#details-body");
  body.replaceChildren(element("p", cell.status, "note"));
  if (cell.runs.length) body.append(element("h3", "Every seed"), seeds(cell));
  body.append(...curves(cell));
  for (const [title, rows] of cell.sections) body.append(element("h3", title), facts(rows));
  if (cell.command) {
    const more = cell.runs.length > 1 ? "; change --seed for the other seeds" : "";
    body.append(element("h3", `Command (seed ${cell.runs[0][0]}${more})`), command(cell.command));
  }
  if (cell.config) {
    const box = element("details");
    box.append(element("summary", "All settings that affect the result"), element("pre", cell.config));
    body.append(box);
  }
}

function open(index) {
  const cell = data.cells[index];
  if (!cell) return;
  fill(cell);
  state.cell = String(index);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  write();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-c]");
  if (button) open(Number(button.dataset.c));
  else if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) dialog.close();
});
$("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => { state.cell = ""; write(); });

function restore() {
  read();
  sort();
  apply();
  if (data.cells[state.cell]) open(Number(state.cell));
  else if (dialog.open) dialog.close();
}
addEventListener("hashchange", restore);
restore();
