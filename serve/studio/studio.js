import * as api from "./api.js";
import { byId, prefersStill } from "./dom.js";
import { acceptDrops } from "./drops.js";
import { createHistory } from "./history.js";
import { keepable, keptSource } from "./keeping.js";
import { createPresets } from "./presets.js";
import { createProblem } from "./problem.js";
import { createProgress } from "./progress.js";
import { createRecorder } from "./record.js";
import { Run } from "./run.js";
import { createSettings } from "./settings.js";
import { createSound } from "./sound.js";
import { appendSource, createSource, scene } from "./source.js";
import { openStore } from "./store.js";
import { createWall } from "./wall.js";

const OPENING = { seed: 28, sample: "church-bells" }; // a pair whose first edit explains the page
const DRAFT = "draft"; // what was chosen last
const WORTH_ANOTHER_TRY = new Set(["Unreachable", "Lost", "UnknownEdit", "Cancelled"]);

const problem = createProblem();
const say = (words) => (byId("status").textContent = words);
open().catch((error) => {
  say("");
  const retry = () => (error.status === 422 ? location.assign("/") : location.reload()); // 422: no such preset
  problem.show("The studio cannot open", error, { retry });
});

async function open() {
  const service = await api.models();
  const store = await openStore(service.preset);
  document.documentElement.style.setProperty("--aspect", service.width / service.height);
  const { samples, limits } = service;
  const onProblem = problem.show;
  const running = ["soundguide.running", service.preset].filter(Boolean).join(" "); // keeps the id of this tab's edit

  const presets = createPresets(service);
  const progress = createProgress({ say });
  const settings = createSettings({
    schema: service.settings,
    maxSteps: limits.max_steps,
    hasIdentity: "identity" in service.models,
    onChange: invite,
  });
  const source = createSource({ limits: limits.sources, onChange: sourceChosen, onProblem });
  const sound = createSound({ samples, limits: limits.sources, onChange: soundChosen, onProblem });
  const wall = createWall({ onOnward: goOn, onProblem });
  const history = await createHistory({ store, describe: settings.describe, onChoose: returnTo });
  let run = null;

  createRecorder({
    onStart: sound.hush,
    onLevels: sound.tape.roll,
    onSound: (blob) => sound.useFile(blob, "your recording"),
    onIdle: () => sound.show(sound.value),
    onProblem,
  });
  acceptDrops({
    onPicture: (file) =>
      run
        ? onProblem("An edit is being painted", new Error("cancel it or wait for it, then drop the picture again"))
        : source.usePhoto(file),
    onSound: (file) => sound.useFile(file),
    onOther: (error) => onProblem("This file cannot be used", error),
  });
  byId("edit").addEventListener("click", edit);
  byId("cancel").addEventListener("click", () => run?.cancel());
  byId("edit-keys").textContent = /mac|iphone|ipad/i.test(navigator.userAgent) ? "⌘ ↵" : "Ctrl ↵";
  addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault(); // or a button that has the focus is pressed as well
    edit();
  });
  for (const control of document.querySelectorAll("[data-waits]")) control.disabled = false;
  await beginWhereLeft();

  /** Go on with the edit that a reload interrupted, or with what was chosen last, or with the opening pair. */
  async function beginWhereLeft() {
    const id = sessionStorage.getItem(running);
    const made = id && (await store.get(runningKey(id)));
    const chosen = made || (await store.get(DRAFT));
    await put(chosen ?? { source: scene(OPENING.seed), sound: { sample: OPENING.sample } });
    if (!made) return;
    settings.show(made.asked);
    follow(made, id);
  }

  /** Show a source and a sound as they were kept. */
  async function put(chosen, result) {
    const kept = (await keptSource(chosen.source, result)) ?? scene(OPENING.seed);
    source.show(kept);
    wall.showSource(kept);
    putSound(chosen.sound);
    settings.hasSound = Boolean(sound.value);
    invite();
  }

  function putSound(kept) {
    const known = samples.find(({ name }) => name === kept?.sample) ?? samples[0];
    if (kept?.sample && known) sound.useSample(known.name);
    else sound.show(kept?.blob ? kept : null);
  }

  function sourceChosen() {
    wall.showSource(source.value);
    history.mark(null);
    problem.clear();
    choiceMade();
  }

  function soundChosen() {
    settings.hasSound = Boolean(sound.value);
    if (sound.value) problem.clear();
    choiceMade();
  }

  function choiceMade() {
    store.put(DRAFT, keepable({ source: source.value, sound: sound.value }));
    invite();
  }

  /** Say what the next edit would be, and allow it if it would be one. */
  function invite() {
    const means = [sound.value?.title, settings.words && "your words"].filter(Boolean).join(" and ");
    byId("edit").disabled = !means;
    if (!run) say(means ? `Paints ${means} into ${source.value.title}.` : "Choose a sound or type words first.");
  }

  function edit() {
    if (run || byId("edit").disabled) return;
    follow({ source: source.value, sound: sound.value, asked: settings.read() });
  }

  /** Run an edit, or watch the one with this id, to its end. */
  function follow(made, id) {
    return attempt(made, new Run(() => formOf(made), id));
  }

  async function attempt(made, started) {
    const before = wall.entry;
    run = started;
    begin(made);
    let result;
    try {
      result = await started.follow((event) => showEvent(event, made));
    } catch (error) {
      end();
      await backTo(before);
      return started.cancelled ? say("Cancelled.") : tellFailure(error, made, started);
    }
    end();
    say("Done. Move the slider over the picture to compare.");
    const entry = { ...keepable(made), id: result.id, result };
    history.add(entry);
    await wall.showEdit(entry);
  }

  function tellFailure(error, made, started) {
    const title = error.retrySeconds ? "The edit has to wait" : "The edit was not made";
    say("");
    problem.show(title, error, retryOf(error, made, started));
  }

  function begin(made) {
    const held = document.activeElement === byId("edit");
    problem.clear();
    lock(true);
    wall.begin(made);
    progress.begin();
    if (held) byId("cancel").focus({ preventScroll: true });
    byId("frame").scrollIntoView({ block: "nearest", behavior: prefersStill() ? "auto" : "smooth" });
  }

  function end() {
    const held = document.activeElement === byId("cancel");
    run = null;
    store.remove(runningKey(sessionStorage.getItem(running)));
    sessionStorage.removeItem(running);
    wall.end();
    progress.end();
    lock(false);
    if (held) byId("edit").focus({ preventScroll: true });
  }

  function showEvent({ kind, data }, made) {
    if (kind === "begun") {
      sessionStorage.setItem(running, data.id);
      store.put(runningKey(data.id), keepable(made));
    }
    if (kind !== "progress") return;
    progress.show(data, made.asked.num_steps);
    if (data.preview) wall.preview(data.preview);
  }

  function retryOf(error, made, started) {
    if (error.retrySeconds) return { retry: () => attempt(made, started), seconds: error.retrySeconds };
    return WORTH_ANOTHER_TRY.has(error.kind) ? { retry: () => follow(made) } : {};
  }

  function lock(locked) {
    presets.lock(locked);
    source.lock(locked);
    history.lock(locked);
  }

  async function backTo(entry) {
    if (entry) return wall.showEdit(entry);
    await source.show(source.value);
    wall.showSource(source.value);
  }

  async function returnTo(entry) {
    problem.clear();
    settings.show(entry.asked);
    await put(entry, entry.result);
    history.mark(entry.id);
    await wall.showEdit(entry);
  }

  function goOn(entry) {
    const { edited_latent: latent, edited_image: image } = entry.result;
    source.show({
      kind: "latent",
      latent,
      image,
      title: `${entry.source.title} with ${entry.sound?.title ?? "words"}`,
    });
    sourceChosen();
  }
}

const runningKey = (id) => `running ${id}`;

async function formOf({ source, sound, asked }) {
  const form = new FormData();
  await appendSource(form, source);
  const blob = sound?.blob ?? (sound?.sample && (await api.sample(`/v1/samples/${sound.sample}`)));
  if (blob) form.append("audio", blob, blob.name ?? "sound");
  form.append("settings", JSON.stringify(asked));
  return form;
}
