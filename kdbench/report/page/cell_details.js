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
  const best = cell.runs.some((run) => run[4] !== null);
  for (const name of ["Seed", "Last epoch, %", ...(best ? ["Best epoch, %"] : []), "Status", "Run", ...(reasons ? ["Reason"] : [])]) {
    const heading = element("th", name);
    heading.scope = "col";
    head.append(heading);
  }
  cell.runs.forEach(([seed, id, status, last, highest, epoch, reason], i) => {
    const row = rows.insertRow(), first = element("th", seed);
    first.scope = "row";
    if (data.curves[id]) first.prepend(element("span", null, `key k${i % 5}`));
    row.append(first);
    const accuracies = [last?.toFixed(2) ?? "–"];
    if (best) accuracies.push(highest === null ? "–" : `${highest.toFixed(2)} (epoch ${epoch})`);
    for (const text of [...accuracies, status, id]) row.append(element("td", text));
    if (reasons) row.append(element("td", reason, "reason"));
  });
  const box = element("div", null, "scroll");
  box.append(table);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Every seed, scrolls sideways");
  return box;
}

// --- the learning curve ---

function traces(cell) {
  const runs = (of, kind) => of.runs.map((run, i) => [run[1], kind || `k${i % 5}`]).filter(([id]) => data.curves[id]);
  const base = data.cells[data.baselines[cell.pair]], own = runs(cell);
  const all = base && base !== cell && cell.method !== "teacher" && own.length ? [...runs(base, "other"), ...own] : own;
  return all.map(([id, kind]) => ({ kind, points: points(id).filter(([, y]) => y !== null) }));
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
  return [element("h3", `${capital(data.accuracy)} per epoch, %`), svg, element("p", `One line per seed${dashed}.`, "note"), label];
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

function fillCell(cell) {
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

function show(changes) {
  Object.assign(state, { cell: "", row: "" }, changes);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  write();
}

function openCell(index) {
  const cell = data.cells[index];
  if (!cell) return;
  fillCell(cell);
  show({ cell: String(index) });
}

// Anything with data-c opens that cell, with data-r that row; the drawing at the top has them, too.
document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const opener = event.target.closest?.("[data-c], [data-r]");
  if (opener?.dataset.c) openCell(Number(opener.dataset.c));
  else if (opener) openMethod(data.rows[Number(opener.dataset.r)]?.name);
  else if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) dialog.close();
});
$("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => { state.cell = state.row = ""; write(); });
