// Colour scheme (light, dark or the system's), and functions that the other scripts share.
// No script builds HTML from strings: data is only ever set as text.
"use strict";
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
document.documentElement.classList.add("js");

const THEMES = { "": ["auto", "system setting"], light: ["light", "light"], dark: ["dark", "dark"] };
function colours(theme) {
  const [text, label] = THEMES[theme];
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("#theme").textContent = `Colours: ${text}`;
  $("#theme").setAttribute("aria-label", `Colours: ${label}`);
}
let theme = "";
try { theme = localStorage.getItem("kdbench-colours") || ""; } catch { }
colours(theme in THEMES ? theme : "");
$("#theme").addEventListener("click", () => {
  const names = Object.keys(THEMES), now = document.documentElement.dataset.theme || "";
  const next = names[(names.indexOf(now) + 1) % names.length];
  colours(next);
  try { localStorage.setItem("kdbench-colours", next); } catch { }
});
