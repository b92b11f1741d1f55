import { byId } from "./dom.js";

const NUM_PEAKS = 240;

/** The sound as it looks, and its player: spectrogram, waveform, playhead, seeking. */
export function createTape({ onProblem }) {
  const tape = byId("tape");
  const player = byId("player");
  const play = byId("play");
  const seek = byId("seek");
  const spectrogram = byId("spectrogram");
  const playhead = byId("playhead");
  const [whole, played] = byId("wave").children;
  let seconds = 0;

  function drawWave(peaks) {
    const loudest = Math.max(0.02, ...peaks);
    const shape = peaks.map((peak, i) => {
      const height = Math.max(0.02, (0.96 * peak) / loudest);
      return `M${i + 0.5} ${(1 - height).toFixed(3)}V${(1 + height).toFixed(3)}`;
    });
    for (const path of [whole, played]) path.setAttribute("d", shape.join(""));
  }

  function showTime() {
    const at = seconds ? Math.min(1, player.currentTime / seconds) : 0;
    playhead.style.left = `${100 * at}%`;
    played.style.clipPath = `inset(0 ${100 * (1 - at)}% 0 0)`;
    if (document.activeElement !== seek || !player.paused) seek.value = player.currentTime;
    seek.setAttribute("aria-valuetext", `${player.currentTime.toFixed(1)} of ${seconds.toFixed(1)} seconds`);
    playhead.hidden = player.paused && at === 0;
  }

  function showState() {
    const playing = !player.paused;
    play.querySelector("use").setAttribute("href", playing ? "#i-pause" : "#i-play");
    play.setAttribute("aria-label", playing ? "Pause the sound" : "Play the sound");
    showTime();
    if (playing) requestAnimationFrame(tick);
  }

  function tick() {
    showTime();
    if (!player.paused) requestAnimationFrame(tick);
  }

  function rest(state) {
    player.pause();
    seconds = 0;
    spectrogram.hidden = true;
    play.disabled = seek.disabled = true;
    drawWave(new Array(NUM_PEAKS).fill(0));
    tape.dataset.state = state;
    showTime();
  }

  play.addEventListener("click", () => {
    if (!player.paused) return player.pause();
    player.play().catch((error) => {
      if (error.name === "AbortError") return; // another sound came
      onProblem(
        "The sound cannot be played",
        new Error("this browser does not play its format. The edit can use it all the same"),
      );
    });
  });
  seek.addEventListener("input", () => {
    player.currentTime = Number(seek.value);
    showTime();
  });
  for (const event of ["play", "pause"]) player.addEventListener(event, showState);
  player.addEventListener("ended", () => {
    player.currentTime = 0;
    showTime();
  });

  return {
    /** A sound is on its way. */
    wait() {
      rest("listening");
    },
    /** Take a sound whose looks are not known yet. */
    load(blob) {
      URL.revokeObjectURL(player.src);
      player.src = URL.createObjectURL(blob);
      play.disabled = false;
    },
    /** Show what the service found in it. */
    draw(found) {
      ({ seconds } = found);
      seek.max = seconds;
      seek.disabled = false;
      spectrogram.src = found.spectrogram;
      spectrogram.hidden = false;
      drawWave(found.waveform);
      tape.dataset.state = "ready";
    },
    /** Show the peaks of a recording while it is made. */
    roll(peaks) {
      if (tape.dataset.state !== "recording") return; // another sound was chosen meanwhile
      drawWave([...new Array(Math.max(0, NUM_PEAKS - peaks.length)).fill(0), ...peaks.slice(-NUM_PEAKS)]);
    },
    record() {
      rest("recording");
    },
    clear() {
      rest("empty");
      player.removeAttribute("src");
    },
  };
}
