// Dialog with a method's details: its place over pairs, its paper, and its cells.
function methodOf(name) { return data.rows.find((row) => row.name === name); }

// A link to another page; plugins write these addresses, so only web addresses become links.
function link(address, text) {
  if (!/^https?:\/\//i.test(address)) return element("span", text === address ? address : `${text}: ${address}`);
  const node = element("a", text);
  node.href = address;
  node.rel = "noreferrer";
  return node;
}

function fillMethod(method) {
  $("#details-title").textContent = method.name;
  const body = $("#details-body"), places = element("ul", null, "places");
  body.replaceChildren();
  for (const [title, rows] of method.sections) body.append(element("h3", title), facts(rows));
  if (method.links?.length) {
    const line = element("p", null, "links");
    for (const [text, address] of method.links) line.append(link(address, text), " ");
    body.append(line);
  }
  if (method.bibtex) body.append(element("h3", "BibTeX"), command(method.bibtex));
  for (const [pair, index] of Object.entries(method.cells)) {
    const item = element("li"), button = element("button", pair);
    button.type = "button";
    button.dataset.c = index;
    item.append(button, " ", element("span", data.cells[index].mean || data.cells[index].status, "soft"));
    places.append(item);
  }
  if (places.children.length) body.append(element("h3", "Cells"), places);
}

function openMethod(name) {
  const method = methodOf(name);
  if (!method) return;
  fillMethod(method);
  show({ row: name });
}
