// Light, dark or as the system; and what the other scripts share.
// No script here makes HTML of text: what comes from data is set as text only.
"use strict";
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
document.documentElement.classList.add("js");

const THEMES = { "": ["auto", "as the system"], light: ["light", "light"], dark: ["dark", "dark"] };
function colours(theme) {
  const [word, said] = THEMES[theme];
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("#theme").textContent = `Colours: ${word}`;
  $("#theme").setAttribute("aria-label", `Colours: ${said}`);
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
