import * as api from "./api.js";
import { byId, capital, make } from "./dom.js";
import { createTape } from "./tape.js";

const MIB = 2 ** 20;
const NUM_HEARD = 3;
const LONG = 19; // letters; longer labels take two places
const PEEK_PX = 40; // of the neighbour of a tile that is brought into view

/*
 * A sound is {title, blob} of a file or a recording; one from the shelf is {title, sample}, its name, and gets its blob
 * once that has come.
 * `onChange` is called when it was chosen here, or taken away (the value is null then).
 */
export function createSound({ samples, limits, onChange, onProblem }) {
  const shelf = byId("shelf");
  const heard = byId("heard");
  const upload = byId("upload-sound");
  const remove = byId("clear-sound");
  const tape = createTape({ onProblem });
  let sound = null;
  let lastHeard = null; // what to go back to from a file that nobody can read
  let asking = new AbortController();

  for (const { name, label } of samples) {
    const button = make(
      "button",
      { type: "button", onclick: () => useSample(name) },
      make("span", { textContent: capital(label) }),
    );
    button.dataset.sample = name;
    shelf.append(make("li", { className: label.length > LONG ? "long" : "" }, button));
  }

  function mark(next) {
    sound = next;
    for (const button of shelf.querySelectorAll("button")) {
      const chosen = button.dataset.sample === next?.sample;
      button.setAttribute("aria-pressed", String(chosen));
      if (chosen) bringIntoShelf(button.parentElement);
    }
    byId("sound-name").textContent = next ? capital(next.title) : "No sound";
    byId("sound-length").textContent = "";
    remove.hidden = !next;
    heard.replaceChildren();
  }

  /** Show a sound and ask what is heard in it. */
  async function show(next) {
    asking.abort();
    asking = new AbortController();
    mark(next);
    if (!next) {
      lastHeard = null;
      return tape.clear();
    }
    tape.wait();
    const { signal } = asking;
    try {
      next.blob ??= await api.sample(samples.find(({ name }) => name === next.sample).url, signal);
      tape.load(next.blob);
      const found = await api.listen(next.blob, NUM_HEARD, signal);
      byId("sound-length").textContent = length(found.seconds);
      tape.draw(found);
      heard.replaceChildren(...found.labels.map(heardRow));
      lastHeard = next;
    } catch (error) {
      if (signal.aborted) return;
      const ofThisFile = error.status >= 400 && error.status < 429;
      if (ofThisFile) choose(lastHeard);
      onProblem(
        "The sound cannot be used",
        error,
        ofThisFile ? {} : { retry: () => choose(next), seconds: error.retrySeconds },
      );
    }
  }

  /** On a phone the shelf scrolls sideways; the page itself must not move. */
  function bringIntoShelf({ offsetLeft, offsetWidth }) {
    const start = offsetLeft - shelf.offsetLeft;
    if (start < shelf.scrollLeft || start + offsetWidth > shelf.scrollLeft + shelf.clientWidth)
      shelf.scrollLeft = start - PEEK_PX;
  }

  function choose(next) {
    const shown = show(next);
    onChange();
    return shown;
  }

  function useSample(name) {
    return choose({ sample: name, title: samples.find((each) => each.name === name).label });
  }

  function useFile(file, title = file.name || "pasted sound") {
    if (file.size > limits.max_sound_mib * MIB) {
      const error = new Error(
        `it has ${Math.ceil(file.size / MIB)} MiB, and ${limits.max_sound_mib} are allowed. Shorten or compress it`,
      );
      return onProblem("The sound is too large", error);
    }
    return choose({ title, blob: file });
  }

  upload.addEventListener("change", () => {
    if (upload.files[0]) useFile(upload.files[0]);
    upload.value = ""; // the same file may be chosen again
  });
  remove.addEventListener("click", () => choose(null));

  return {
    get value() {
      return sound;
    },
    show,
    useSample,
    useFile,
    tape,
    /** Make room for a recording. */
    hush() {
      tape.record();
      heard.replaceChildren();
      byId("sound-name").textContent = "Recording";
      byId("sound-length").textContent = "";
      remove.hidden = true;
    },
  };
}

function heardRow({ label, probability }) {
  const bar = make("i", { ariaHidden: "true" });
  bar.style.width = `${100 * probability}%`;
  return make(
    "li",
    {},
    make("span", { textContent: capital(label) }),
    make("b", { textContent: share(probability) }),
    bar,
  );
}

const share = (probability) => (probability < 0.005 ? "< 1 %" : `${Math.round(100 * probability)} %`);

const length = (seconds) =>
  seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
