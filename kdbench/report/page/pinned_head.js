// The table's head stays at the top of the window while the page scrolls. A box that scrolls sideways keeps a sticky head
// inside itself, so a copy above the box is shown; readers of the page's structure have the original.
const scroller = $("#table-scroll"), pinned = $("#pinned");

function pin() {
  const copy = table.cloneNode(false), box = document.createElement("div");
  copy.removeAttribute("id");
  const head = table.tHead.cloneNode(true);
  for (const node of $$("[id]", head)) node.removeAttribute("id");
  for (const button of $$("button", head)) {
    const text = document.createElement("span");
    text.className = "h sort";
    text.textContent = button.textContent;
    button.replaceWith(text);
  }
  [...head.rows[0].cells].forEach((cell, i) => cell.addEventListener("click", () => heads[i].click()));
  copy.append(head);
  box.append(copy);
  box.hidden = true;
  pinned.replaceChildren(box);
}

// Copy widths, order marks and the sideways position of the original.
function align() {
  const box = pinned.firstChild, cells = $$("th", box);
  copyState(cells);
  box.firstChild.style.width = `${table.getBoundingClientRect().width}px`;
  heads.forEach((head, i) => { cells[i].style.width = `${head.getBoundingClientRect().width}px`; });
  box.scrollLeft = scroller.scrollLeft;
  follow();
}

function copyState(cells) {
  heads.forEach((head, i) => {
    cells[i].hidden = head.hidden;
    cells[i].setAttribute("aria-sort", head.getAttribute("aria-sort"));
  });
}

function follow() {
  const box = pinned.firstChild, outside = table.tHead.getBoundingClientRect(), end = table.getBoundingClientRect().bottom;
  const shown = outside.top < 0 && end > outside.height;
  if (box.hidden === shown) {
    box.hidden = !shown;
    if (shown) align();
  }
}

if (pinned) {
  pin();
  addEventListener("scroll", follow, { passive: true });
  scroller.addEventListener("scroll", () => { pinned.firstChild.scrollLeft = scroller.scrollLeft; }, { passive: true });
  new ResizeObserver(() => align()).observe(table);
}
