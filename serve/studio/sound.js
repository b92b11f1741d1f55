import * as api from "./api.js";
import { byId, capital, make } from "./dom.js";
import { createTape } from "./tape.js";

const MIB = 2 ** 20;
const NUM_HEARD = 3;

/*
 * A sound is {title, blob} of a file or a recording, and has `sample`, its name, if it is from the shelf.
 * `onChange` is called when it was chosen here, or taken away (the value is null then).
 */
export function createSound({ samples, limits, onChange, onProblem }) {
  const shelf = byId("shelf");
  const heard = byId("heard");
  const upload = byId("upload-sound");
  const remove = byId("clear-sound");
  const tape = createTape({ onProblem });
  let sound = null;
  let asking = new AbortController();

  for (const { name, label } of samples) {
    const button = make("button", { type: "button", onclick: () => useSample(name) }, make("span", { textContent: label }));
    button.dataset.sample = name;
    shelf.append(make("li", { className: label.length > 19 ? "long" : "" }, button));
  }

  function mark(next) {
    sound = next;
    for (const button of shelf.querySelectorAll("button")) button.ariaPressed = String(button.dataset.sample === next?.sample);
    byId("sound-name").textContent = next ? capital(next.title) : "No sound";
    byId("sound-name").dataset.sample = next?.sample ?? "";
    byId("sound-length").textContent = "";
    remove.hidden = !next;
    heard.replaceChildren();
  }

  /** Show a sound and ask what is heard in it. One that nobody can read is taken away again. */
  async function show(next) {
    asking.abort();
    asking = new AbortController();
    mark(next);
    if (!next) return tape.clear();
    tape.load(next.blob);
    const { signal } = asking;
    try {
      const found = await api.listen(next.blob, NUM_HEARD, signal);
      byId("sound-length").textContent = length(found.seconds);
      tape.draw(found);
      heard.replaceChildren(...found.labels.map(heardRow));
    } catch (error) {
      if (signal.aborted) return;
      refuse("The sound cannot be used", error, error.status === 0 || error.status >= 429 ? () => choose(next) : undefined);
    }
  }

  function choose(next) {
    const shown = show(next);
    onChange();
    return shown;
  }

  function refuse(title, error, retry) {
    choose(null);
    onProblem(title, error, { retry, seconds: error.retrySeconds });
  }

  async function useSample(name) {
    const { label, url } = samples.find((each) => each.name === name);
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    try {
      const blob = await api.sample(url, signal);
      await choose({ sample: name, title: label, blob });
    } catch (error) {
      if (!signal.aborted) refuse("The sound cannot be fetched", error, () => useSample(name));
    }
  }

  function useFile(file, title = file.name || "pasted sound") {
    if (file.size > limits.max_sound_mib * MIB) {
      const error = new Error(`it has ${Math.ceil(file.size / MIB)} MiB, and ${limits.max_sound_mib} are allowed. Shorten or compress it`);
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
  };
}

function heardRow({ label, probability }) {
  const bar = make("i", { ariaHidden: "true" });
  bar.style.width = `${100 * probability}%`;
  return make("li", {}, make("span", { textContent: label }), make("b", { textContent: share(probability) }), bar);
}

const share = (probability) => (probability < 0.005 ? "< 1 %" : `${Math.round(100 * probability)} %`);

const length = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`);
