// What a narrow cell leaves out, shown while the pointer or the focus is on it; Escape hides it.
const hint = document.createElement("div");
hint.className = "hint";
hint.hidden = true;
hint.setAttribute("aria-hidden", "true");
document.body.append(hint);

function hintOf(target) {
  const name = target.closest?.(".leaderboard .name");
  if (name) return [name, name.scrollWidth > name.clientWidth ? name.textContent : ""];
  const cell = target.closest?.(".leaderboard td");
  return [cell, cell ? $(".more", cell)?.textContent || "" : ""];
}

let hinted = null;

function placeHint() {
  if (!hinted) return;
  const place = hinted.getBoundingClientRect(), own = hint.getBoundingClientRect();
  hint.style.left = `${Math.max(4, Math.min(place.left, innerWidth - own.width - 4))}px`;
  hint.style.top = `${place.bottom + own.height + 4 > innerHeight ? place.top - own.height - 2 : place.bottom + 2}px`;
}

function showHint(event) {
  const [owner, text] = hintOf(event.target);
  hint.hidden = !text;
  hinted = text ? owner : null;
  hint.textContent = text;
  placeHint();
}

function hideHint() {
  hint.hidden = true;
  hinted = null;
}

for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, showHint);
document.addEventListener("focusout", hideHint);
// The focus scrolls its cell into view.
addEventListener("scroll", placeHint, { passive: true, capture: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideHint(); });
