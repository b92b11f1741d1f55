import { byId } from "./dom.js";

const LONGEST_MS = 30_000;
const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];

const REFUSALS = {
  NotAllowedError:
    "the browser was told not to. Allow the microphone for this page in its site settings, then press Record again",
  NotFoundError: "there is none. Connect a microphone, or upload a sound file",
  NotReadableError: "another program holds it. Close that program, then press Record again",
};

/** The Record button. `onLevels` gets the peaks so far, `onSound` the finished recording, `onIdle` a broken-off one. */
export function createRecorder({ onStart, onLevels, onSound, onIdle, onProblem }) {
  const button = byId("record");
  const words = button.lastElementChild;
  let recorder = null;

  button.addEventListener("click", () => (recorder ? recorder.stop() : start()));

  async function start() {
    const obstacle = missing();
    if (obstacle) return onProblem("The microphone cannot be used", new Error(obstacle));
    button.disabled = true;
    try {
      record(await navigator.mediaDevices.getUserMedia({ audio: true }));
    } catch (error) {
      const why = REFUSALS[error.name] ?? `the browser says: ${error.message}. Upload a sound file instead`;
      onProblem("The microphone cannot be used", new Error(why));
    } finally {
      button.disabled = false;
    }
  }

  function record(stream) {
    const parts = [];
    const began = performance.now();
    const meter = createMeter(stream);
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    recorder = new MediaRecorder(stream, { mimeType });
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onstop = () => {
      clearInterval(ticking);
      meter.close();
      for (const track of stream.getTracks()) track.stop();
      const blob = new Blob(parts, { type: recorder.mimeType });
      recorder = null;
      show(false, "Record");
      if (blob.size) onSound(blob);
      else onIdle();
    };
    const peaks = [];
    const ticking = setInterval(() => {
      const ms = performance.now() - began;
      peaks.push(meter.peak());
      onLevels(peaks);
      words.textContent = `Stop, ${(ms / 1000).toFixed(0)} s`;
      if (ms > LONGEST_MS) recorder.stop();
    }, 60);
    onStart();
    recorder.start();
    show(true, "Stop, 0 s");
  }

  function show(recording, label) {
    button.setAttribute("aria-pressed", String(recording));
    words.textContent = label;
  }
}

/** Why there is nothing to record with; empty if there is. */
function missing() {
  if (!isSecureContext)
    return "browsers lend it only to pages over https, or on localhost. Open the studio there, or upload a sound file";
  if (!navigator.mediaDevices || !window.MediaRecorder)
    return "this browser cannot record. Use another one, or upload a sound file";
  return "";
}

/** How loud a stream is right now, 0..1. */
function createMeter(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  const window = new Float32Array(analyser.fftSize);
  context.createMediaStreamSource(stream).connect(analyser);
  return {
    peak() {
      analyser.getFloatTimeDomainData(window);
      return window.reduce((loudest, value) => Math.max(loudest, Math.abs(value)), 0);
    },
    close: () => context.close(),
  };
}
