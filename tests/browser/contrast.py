"""The contrast of all text that is seen, as WCAG 2 defines it."""

CONTRAST = """(root) => {
  const parse = (text) => {
    const all = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [...all.slice(0, 3).map((x) => 255 * x), all[3] ?? 1] : [...all.slice(0, 3), all[3] ?? 1];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const paper = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const out = [];
  const walker = document.createTreeWalker(document.querySelector(root), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("script, style, noscript, .few")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(paper(element))].sort((x, y) => y - x);
    out.push([(a + 0.05) / (b + 0.05), text.slice(0, 40)]);
  }
  return out;
}"""
"""A script: selector of a part of the page -> [contrast, text] of each of its texts."""
