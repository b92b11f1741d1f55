"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const sounds = JSON.parse($("sounds").textContent);
  const grid = $("grid");
  if (!grid) return;
  const cards = [...grid.children];
  const player = $("player"), viewer = $("viewer"), slider = $("slider");
  let visible = cards, current = null, playing = "";

  // Spectrograms are stored once per sound and handed out here.
  for (const card of cards) {
    const sound = sounds[card.dataset.sound];
    card.idText = card.querySelector(".id").textContent;
    card.haystack = card.querySelector(".facts").textContent + " " + (card.querySelector(".fault")?.textContent ?? "");
    card.haystack = card.haystack.toLowerCase();
    if (!sound) continue;
    card.querySelector(".mel img").src = sound.spectrogram;
    card.querySelector(".length").textContent = (sound.cut ? "first " : "") + sound.seconds.toFixed(sound.seconds < 9.95 ? 1 : 0) + " s";
  }

  // Filter and sort.
  const collator = new Intl.Collator(undefined, { numeric: true });
  const number = (card, key) => (card.dataset[key] === "" ? NaN : Number(card.dataset[key]));
  const statuses = ["quarantined", "error", "ok"]; // what needs a look comes first
  const orders = {
    position: (a, b) => number(a, "position") - number(b, "position"),
    id: (a, b) => collator.compare(a.idText, b.idText),
    status: (a, b) => statuses.indexOf(a.dataset.status) - statuses.indexOf(b.dataset.status),
  };
  function compare(key, sign) {
    return (a, b) => {
      if (orders[key]) return sign * orders[key](a, b) || orders.position(a, b);
      const x = number(a, key), y = number(b, key);
      const failed = (c) => c.classList.contains("failed") || Number.isNaN(number(c, key));
      if (failed(a) !== failed(b)) return failed(a) ? 1 : -1; // rows without a figure come last, either way round
      return (failed(a) ? 0 : sign * (x - y)) || orders.position(a, b);
    };
  }
  function arrange() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = document.querySelector(".kind[aria-pressed=true] span")?.textContent;
    const key = $("sort").value, down = $("direction").getAttribute("aria-pressed") === "true";
    // Gains are wanted largest first; everything else smallest first. The button turns either round.
    const sign = (key === "gain" ? -1 : 1) * (down ? -1 : 1);
    const wanted = (card) => words.every((word) => card.haystack.includes(word)) &&
      (!kind || card.querySelector(".fault-kind")?.textContent === kind);
    const sorted = [...cards].sort(compare(key, sign));
    visible = sorted.filter(wanted);
    for (const card of cards) card.hidden = true;
    for (const card of visible) card.hidden = false;
    grid.append(...sorted);
    $("shown").textContent = visible.length === cards.length ? "" : `${visible.length} of ${cards.length}`;
    $("nomatch").hidden = visible.length > 0;
  }
  $("filter").addEventListener("input", arrange);
  $("sort").addEventListener("change", arrange);
  function toggle(button) {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  }
  $("direction").addEventListener("click", (event) => { toggle(event.currentTarget); arrange(); });
  for (const kind of document.querySelectorAll(".kind")) {
    kind.addEventListener("click", () => {
      for (const other of document.querySelectorAll(".kind")) if (other !== kind) other.setAttribute("aria-pressed", "false");
      toggle(kind);
      arrange();
    });
  }
  $("clear").addEventListener("click", () => {
    $("filter").value = "";
    for (const kind of document.querySelectorAll(".kind")) kind.setAttribute("aria-pressed", "false");
    arrange();
    $("filter").focus();
  });

  // One player for all sounds.
  function play(key, share = 0) {
    const sound = sounds[key];
    if (!sound) return;
    if (playing !== key) {
      playing = key;
      player.src = sound.audio;
      $("playing").textContent = sound.name;
    }
    $("dock").hidden = false;
    (viewer.open ? viewer : document.body).append($("dock")); // a modal dialog covers and disables what is outside it
    player.currentTime = share * sound.seconds;
    player.play().catch(() => {});
  }
  function marks() {
    const on = playing && !player.paused;
    for (const place of document.querySelectorAll("[data-sound]")) {
      const here = playing !== "" && place.dataset.sound === playing;
      place.classList.toggle("playing", here);
      const icon = place.querySelector(".play use"), button = place.querySelector(".play");
      icon?.setAttribute("href", here && on ? "#i-pause" : "#i-play");
      button?.setAttribute("aria-label", here && on ? "Pause the sound" : "Play the sound");
      if (here) place.querySelector(".mel i")?.style.setProperty("left", `${(100 * player.currentTime) / sounds[playing].seconds}%`);
    }
    if (on) requestAnimationFrame(marks);
  }
  for (const name of ["play", "pause", "seeked", "ended"]) player.addEventListener(name, marks);
  $("undock").addEventListener("click", () => { player.pause(); $("dock").hidden = true; playing = ""; marks(); });
  document.addEventListener("click", (event) => {
    const place = event.target.closest("[data-sound]"), mel = event.target.closest(".mel");
    if (event.target.closest(".play")) playOrPause(place);
    else if (mel) play(place.dataset.sound, (event.clientX - mel.getBoundingClientRect().left) / mel.clientWidth);
    else if (event.target.closest(".open")) show(place);
  });
  function playOrPause(place) {
    if (place.dataset.sound === playing && !player.paused) player.pause();
    else if (place.dataset.sound === playing && !player.ended) player.play().catch(() => {});
    else play(place.dataset.sound);
  }

  // The enlarged view.
  function show(card) {
    current = card;
    const [source, edit] = card.querySelectorAll(".frame > img:not(.inset)");
    const detail = $("detail"), photo = card.querySelector(".inset");
    $("compare").hidden = !(source && edit);
    $("compare").parentElement.classList.toggle("single", !(source && edit));
    for (const [large, small] of [["large-source", source], ["large-edit", edit]]) {
      if (small) $(large).src = small.src;
    }
    detail.dataset.sound = card.dataset.sound;
    const parts = source ? [".sound", ".facts"] : [".facts", ".fault-kind", ".fault-text", ".sound"];
    detail.replaceChildren(...parts.map((part) => card.querySelector(part)?.cloneNode(true)).filter(Boolean));
    if (photo) {
      const given = document.createElement("p");
      given.className = "given";
      given.append(photo.cloneNode(), "The photo as given. The source is what the generator makes of it.");
      detail.append(given);
    }
    const at = visible.indexOf(card);
    $("count").textContent = `${at + 1} of ${visible.length}`;
    $("previous").disabled = at <= 0;
    $("next").disabled = at >= visible.length - 1;
    cut(50);
    if (!viewer.open) viewer.showModal();
    viewer.scrollTop = 0;
    (source && edit ? slider : $("close")).focus();
    marks();
  }
  function cut(percent) {
    slider.value = percent;
    $("compare").style.setProperty("--cut", `${percent}%`);
  }
  function step(by) {
    const card = visible[visible.indexOf(current) + by];
    if (card) show(card);
  }
  slider.addEventListener("input", () => cut(slider.value));
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    document.body.append($("dock"));
    const open = current.querySelector(".open");
    current.scrollIntoView({ block: "nearest" });
    open.focus();
  });

  // Keys.
  function move(key) {
    const opens = visible.map((card) => card.querySelector(".open"));
    const at = opens.indexOf(document.activeElement?.closest?.(".card")?.querySelector(".open"));
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const to = opens[at < 0 ? 0 : at + by];
    to?.focus();
    return Boolean(to);
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.target instanceof Element)) return;
    const typing = event.target.matches("input[type=search], select, audio");
    const key = event.key;
    if (key === "Escape" && event.target === $("filter")) { $("filter").value = ""; arrange(); $("filter").blur(); }
    if (typing) return;
    const place = viewer.open ? $("detail") : event.target.closest("[data-sound]");
    let used = true;
    if (key === "p" && place?.dataset.sound) playOrPause(place);
    else if (viewer.open && key === "ArrowUp") step(-1);
    else if (viewer.open && key === "ArrowDown") step(1);
    else if (viewer.open && (key === "ArrowLeft" || key === "ArrowRight")) cut(Math.min(100, Math.max(0, Number(slider.value) + (key === "ArrowLeft" ? -4 : 4))));
    else if (!viewer.open && key === "/") $("filter").focus();
    else if (!viewer.open && key.startsWith("Arrow") && (event.target.closest(".grid") || event.target === document.body)) {
      used = event.target !== document.body || key === "ArrowRight" ? move(key) : false; // without a card, arrows scroll
    } else used = false;
    if (used) event.preventDefault();
  });
  arrange();
})();
