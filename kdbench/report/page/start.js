// Bring the page into the state that its address describes, now and whenever that changes.
function restore() {
  read();
  sort();
  apply();
  compare();
  if (data.cells[state.cell]) openCell(Number(state.cell));
  else if (methodOf(state.row)) openMethod(state.row);
  else if (dialog.open) dialog.close();
}
addEventListener("hashchange", restore);
restore();
