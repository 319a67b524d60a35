// The first picture: a box with all numbers of a row, keys, and a click that opens its details.
const picture = $("svg.hero");
if (picture) {
  const tip = document.createElement("div"), links = $$("a", picture), figure = picture.parentNode;
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // the link's label says the same
  figure.append(tip);
  const texts = new Map(links.map((link) => [link, $("title", link).textContent]));
  for (const link of links) $("title", link).remove(); // or browsers would show two boxes

  const hide = () => { tip.hidden = true; };
  const show = (link, x) => {
    const frame = figure.getBoundingClientRect(), row = link.getBoundingClientRect();
    tip.textContent = texts.get(link);
    tip.hidden = false;
    const below = row.bottom + 8 + tip.offsetHeight < innerHeight;
    tip.style.top = `${(below ? row.bottom + 6 : row.top - tip.offsetHeight - 6) - frame.top}px`;
    tip.style.left = `${Math.max(0, Math.min(x - frame.left, frame.width - tip.offsetWidth))}px`;
  };
  // One stop for the Tab key; arrows move from row to row.
  const stop = (current) => links.forEach((link) => link.setAttribute("tabindex", link === current ? 0 : -1));
  links.forEach((link, i) => {
    link.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") show(link, event.clientX + 16); });
    link.addEventListener("pointerleave", hide);
    link.addEventListener("focus", () => {
      stop(link);
      if (link.matches(":focus-visible")) show(link, $("circle", link).getBoundingClientRect().right + 12);
    });
    link.addEventListener("blur", hide);
    link.addEventListener("keydown", (event) => {
      const next = { ArrowDown: links[i + 1], ArrowUp: links[i - 1], Home: links[0], End: links.at(-1) }[event.key];
      if (event.key === "Escape") hide();
      if (!next || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      next.focus();
    });
    if (link.dataset.c) link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault(); // cell_details.js opens it
      hide();
    });
  });
  stop(links[0]);
}
