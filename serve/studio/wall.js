import { createCompare } from "./compare.js";
import { byId, capital, make } from "./dom.js";
import { showPicture } from "./enlarge.js";
import { entryTitle } from "./history.js";

const COPIED_MS = 1600;

const ABOUT = {
  seed: "A scene as the generator draws it.",
  photo: "It is first found again among what the generator can draw, then edited there.",
  latent: "Ready to be edited further.",
};

/** The picture and the label beside it: a source, an edit in the making, or an edit that is done. */
export function createWall({ onOnward, onProblem }) {
  const edited = byId("edited-picture");
  const frame = byId("frame");
  const compare = createCompare();
  let entry = null;
  let newest = ""; // the preview that is drawn next, or right now

  function label(title, subtitle) {
    byId("title").textContent = title;
    byId("subtitle").textContent = subtitle;
    byId("measures").hidden = byId("actions").hidden = !entry;
  }

  function hideEdit() {
    entry = null;
    edited.hidden = true;
    edited.removeAttribute("src");
    compare.hide();
  }

  byId("onward").addEventListener("click", () => onOnward(entry));
  byId("copy").addEventListener("click", async ({ currentTarget }) => {
    const words = currentTarget.lastElementChild;
    try {
      await copyText(JSON.stringify(described(entry), null, 2));
    } catch {
      return onProblem(
        "The settings cannot be copied",
        new Error(
          "the browser does not lend the clipboard to this page. Download the PNG: the settings are in its metadata",
        ),
      );
    }
    words.textContent = "Copied";
    setTimeout(() => (words.textContent = "Copy settings"), COPIED_MS);
  });

  return {
    get entry() {
      return entry;
    },
    /** The picture itself is shown by the source's own panel. */
    showSource(source) {
      hideEdit();
      label(capital(source.title), ABOUT[source.kind]);
    },
    begin({ source, sound, asked }) {
      hideEdit();
      frame.dataset.busy = "";
      label(entryTitle({ sound, asked }), `On ${source.title}, being painted.`);
    },
    end() {
      delete frame.dataset.busy;
    },
    /** Show the newest preview; those that come while one is being enlarged are passed over. */
    async preview(url) {
      const idle = !newest;
      newest = url;
      while (idle && newest) {
        const drawn = newest;
        await showPicture(edited, drawn);
        if (newest === drawn) newest = "";
        if ("busy" in frame.dataset) edited.hidden = false;
      }
    },
    async showEdit(next) {
      entry = next;
      const { result } = entry;
      byId("measures").replaceChildren(
        ...measures(entry).flatMap(([term, value]) => [
          make("dt", { textContent: term }),
          make("dd", { textContent: value }),
        ]),
      );
      byId("download").href = result.edited_image;
      byId("download").download = fileName(entry);
      label(entryTitle(entry), `On ${entry.source.title}`);
      // what stands before is the generator's likeness of a photo, not the photo
      byId("before").textContent = entry.source.kind === "photo" ? "Before, as painted" : "Before";
      edited.alt = `${capital(entry.source.title)}, edited with ${entryTitle(entry)}`;
      await Promise.all([
        showPicture(byId("source-picture"), result.source_image),
        showPicture(edited, result.edited_image),
      ]);
      if (entry !== next) return; // another was chosen meanwhile
      edited.hidden = false;
      compare.reveal();
    },
  };
}

function measures({ result, sound }) {
  const rows = [
    [
      sound ? "Match with the sound" : "Match with the words",
      `${signed(result.similarity_before)} to ${signed(result.similarity_after)}`,
    ],
    ["Distance moved", result.latent_distance.toFixed(1)],
    ["Time", `${result.steps} steps in ${result.seconds.toFixed(1)} s`],
  ];
  if (result.level_db !== null) rows.push(["Loudness", `${result.level_db.toFixed(0).replace("-", "\u2212")} dBFS`]);
  if (result.inversion_error !== null) rows.push(["Photo off by", `${(100 * result.inversion_error).toFixed(1)} %`]);
  if (result.alignment_note) rows.push(["Photo", result.alignment_note]);
  if (Number.isFinite(result.identity_similarity)) rows.push(["Same face", signed(result.identity_similarity)]);
  if (result.identity_note) rows.push(["Same face", result.identity_note]);
  return rows;
}

const signed = (value) => (Math.round(100 * value) / 100 || 0).toFixed(2).replace("-", "\u2212");

function fileName(entry) {
  const words = `${entryTitle(entry)} on ${entry.source.title}`;
  return `soundguide-${words
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 60)
    .replace(/^-|-$/g, "")}.png`;
}

/** What it takes to make an edit again, without the files themselves. */
const described = ({ source, sound, result }) => ({
  source: source.kind === "seed" ? { seed: source.seed } : { [source.kind]: source.title },
  sound: sound ? (sound.sample ?? sound.title) : null,
  settings: result.settings,
  models: result.models,
  version: result.version,
});

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = make("textarea", { value: text, className: "hidden" }); // pages over plain http have no other way
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("not copied");
}
