import { byId, prefersStill } from "./dom.js";

const STEP = 2;
const LEAP = 10;
const REVEAL_MS = 900;
const MIDDLE = 50;

/** The before/after slider over the picture. Its value: how much of the picture, from the left, is before. */
export function createCompare() {
  const slider = byId("compare");
  const canvas = slider.parentElement;
  let value = MIDDLE;
  let moving = 0;

  function set(next) {
    value = Math.min(100, Math.max(0, next));
    canvas.style.setProperty("--cut", `${value}%`);
    slider.setAttribute("aria-valuenow", Math.round(value));
    slider.setAttribute("aria-valuetext", `${Math.round(value)} % before, ${Math.round(100 - value)} % after`);
    slider.dataset.end = value < 12 ? "left" : value > 88 ? "right" : "";
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
      ArrowLeft: value - STEP, ArrowDown: value - STEP, ArrowRight: value + STEP, ArrowUp: value + STEP,
      PageDown: value - LEAP, PageUp: value + LEAP, Home: 0, End: 100,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    cancelAnimationFrame(moving);
    set(moves[event.key]);
  });

  return {
    /** Show the edit whole, then draw the cut to the middle so that both can be seen. */
    reveal() {
      slider.hidden = false;
      cancelAnimationFrame(moving);
      if (prefersStill()) return set(MIDDLE);
      const began = performance.now();
      const glide = (now) => {
        const done = Math.min(1, (now - began) / REVEAL_MS);
        set(MIDDLE * (1 - (1 - done) ** 3));
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
