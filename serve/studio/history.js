import { byId, capital, make } from "./dom.js";

const KEY = "history";
const MOST = 24;
const UNDO_MS = 8000;

/*
 * The edits of this browser, newest first. An entry is {id, source, sound, asked, result}: what was edited with what,
 * the settings that were asked for, and the reply. `onChoose` is called with the entry that is clicked.
 */
export async function createHistory({ store, describe, onChoose }) {
  const list = byId("history");
  const clear = byId("clear-history");
  let entries = (await store.get(KEY)) ?? [];
  let cleared = null; // what "Undo" brings back
  let forgetting = 0;
  let shown = null;
  let locked = false;

  function row(entry) {
    const img = make("img", { alt: "", width: 56, height: 56, src: entry.result.edited_image });
    const name = make("b", { textContent: entryTitle(entry) });
    name.dataset.sample = entry.sound?.sample ?? "";
    const about = make(
      "span",
      {},
      name,
      make("small", { textContent: capital(entry.source.title) }),
      make("small", { textContent: capital(describe(entry.asked)) }),
    );
    const button = make("button", { type: "button", disabled: locked, onclick: () => onChoose(entry) }, img, about);
    if (entry.id === shown) button.setAttribute("aria-current", "true");
    return make("li", {}, button);
  }

  function draw() {
    list.replaceChildren(...entries.map(row));
    byId("history-empty").hidden = entries.length > 0;
    clear.hidden = entries.length === 0 && !cleared;
    clear.textContent = cleared ? "Undo" : "Clear";
  }

  clear.addEventListener("click", () => {
    clearTimeout(forgetting);
    if (cleared) {
      [entries, cleared] = [[...entries, ...cleared], null];
    } else {
      [entries, cleared] = [[], entries];
      forgetting = setTimeout(forget, UNDO_MS);
    }
    save();
  });

  function forget() {
    cleared = null;
    draw();
  }

  function save() {
    draw();
    return store.put(KEY, entries);
  }

  draw();

  return {
    add(entry) {
      entries = [entry, ...entries.filter(({ id }) => id !== entry.id)].slice(0, MOST);
      shown = entry.id;
      return save();
    },
    /** Mark the entry on the wall; null: none of them is. */
    mark(id) {
      shown = id;
      list.querySelectorAll("button").forEach((button, i) => {
        if (entries[i].id === id) button.setAttribute("aria-current", "true");
        else button.removeAttribute("aria-current");
      });
    },
    lock(state) {
      locked = state;
      for (const button of list.querySelectorAll("button")) button.disabled = locked;
      clear.disabled = locked;
    },
  };
}

/** What an edit is made with: its sound, its words, or both. */
export const entryTitle = ({ sound, asked }) =>
  capital([sound?.title, asked.text && `“${asked.text}”`].filter(Boolean).join(" and "));
