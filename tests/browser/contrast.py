"""Contrast of all visible text, as defined by WCAG 2."""

CONTRAST = """(root) => {
  const parse = (text) => {
    const all = text.match(/[\\d.]+/g).map(Number), scale = text.startsWith("color(srgb") ? 255 : 1;
    return [...all.slice(0, 3).map((x) => scale * x), all[3] ?? 1];
  };
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [x, y, z] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const paper = (element) => {
    for (let node = element; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const out = [];
  const walker = document.createTreeWalker(document.querySelector(root), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("script, style, .few")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(paper(element))].sort((x, y) => y - x);
    out.push([(a + 0.05) / (b + 0.05), text.slice(0, 40)]);
  }
  return out;
}"""
"""JavaScript function from a selector to [contrast, text] of each visible text in that element."""
