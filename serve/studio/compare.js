import { byId, prefersStill } from "./dom.js";

const STEP = 2;
const LEAP = 10;
const REVEAL_MS = 900;
const REST = 18; // most of the edit is seen, and that there is a before
const LABEL_PX = 76;

/** The before/after slider over the picture. Its value: how much of the picture, from the left, is before. */
export function createCompare() {
  const slider = byId("compare");
  const canvas = slider.parentElement;
  let value = REST;
  let moving = 0;

  function set(next) {
    value = Math.min(100, Math.max(0, next));
    canvas.style.setProperty("--cut", `${value}%`);
    slider.setAttribute("aria-valuenow", Math.round(value));
    slider.setAttribute("aria-valuetext", `${Math.round(value)} % before, ${Math.round(100 - value)} % after`);
    const covers = (share) => (share / 100) * canvas.clientWidth < LABEL_PX;
    slider.dataset.end = covers(value) ? "left" : covers(100 - value) ? "right" : "";
  }

  function follow(event) {
    const { left, width } = canvas.getBoundingClientRect();
    set(((event.clientX - left) / width) * 100);
  }

  slider.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    cancelAnimationFrame(moving);
    slider.setPointerCapture(event.pointerId);
    follow(event);
  });
  slider.addEventListener("pointermove", (event) => {
    if (slider.hasPointerCapture(event.pointerId)) follow(event);
  });
  slider.addEventListener("keydown", (event) => {
    const moves = {
      ArrowLeft: value - STEP,
      ArrowDown: value - STEP,
      ArrowRight: value + STEP,
      ArrowUp: value + STEP,
      PageDown: value - LEAP,
      PageUp: value + LEAP,
      Home: 0,
      End: 100,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    cancelAnimationFrame(moving);
    set(moves[event.key]);
  });

  return {
    /** Show the edit whole, then draw the cut in from the left. */
    reveal() {
      slider.hidden = false;
      cancelAnimationFrame(moving);
      if (prefersStill()) return set(REST);
      const began = performance.now();
      const glide = (now) => {
        const done = Math.min(1, (now - began) / REVEAL_MS);
        set(REST * (1 - (1 - done) ** 3));
        if (done < 1) moving = requestAnimationFrame(glide);
      };
      moving = requestAnimationFrame(glide);
    },
    hide() {
      cancelAnimationFrame(moving);
      slider.hidden = true;
      set(0);
    },
  };
}
