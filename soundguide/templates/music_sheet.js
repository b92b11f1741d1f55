"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const viewer = $("viewer");
  const heads = [...document.querySelectorAll("thead th .frame")];

  // One song at a time.
  document.addEventListener("play", (event) => {
    for (const player of document.querySelectorAll("audio, video")) if (player !== event.target) player.pause();
  }, true);

  let opened = null;
  for (const still of document.querySelectorAll(".still")) {
    still.addEventListener("click", () => {
      opened = still;
      const cell = still.closest("td"), line = cell.closest("tr");
      const source = still.querySelector(".source") ?? heads[Number(cell.dataset.column)]?.querySelector(".source");
      $("large-source").parentElement.hidden = !source;
      if (source) $("large-source").src = source.src;
      $("large-edit").src = still.querySelector(".edit").src;
      $("by").textContent = `by ${line.querySelector(".name").textContent}, ${still.dataset.told}`;
      $("told").textContent = still.title;
      viewer.showModal();
    });
  }
  $("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => opened?.focus());
})();
