// Learning curves: decoding and drawing.

function capital(text) { return text.slice(0, 1).toUpperCase() + text.slice(1); }

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

// If `late`, only the second half: methods differ there, and the start would flatten the scale.
function curve(all, late, width = 688) {
  const last = Math.max(...all.flatMap((trace) => trace.points.map(([x]) => x)));
  const drawn = all.map((trace) => ({ ...trace, points: trace.points.filter(([x]) => !late || x >= last / 2) }));
  const known = drawn.flatMap((trace) => trace.points);
  const [W, H, L, R, T, B] = [Math.min(width, Math.max(innerWidth - 34, 280)), 260, 44, 14, 10, 36];
  const xs = known.map(([x]) => x), ys = known.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)], [low, high] = [Math.min(...ys), Math.max(...ys)];
  const [y0, y1] = high > low ? [low, high] : [low - 1, high + 1];
  const x = (e) => L + ((W - L - R) * (e - x0)) / (x1 - x0 || 1), y = (a) => H - B - ((H - T - B) * (a - y0)) / (y1 - y0);
  const label = `${capital(data.accuracy)} per epoch, one line per seed, epochs ${x0} to ${x1}, from ${low.toFixed(1)} to ${high.toFixed(1)} %`;
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

