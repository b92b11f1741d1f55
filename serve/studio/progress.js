import { byId } from "./dom.js";

const PHASES = { invert: "Finding your photo again", edit: "Painting" };
const EARLY = 0.15; // no forecast before this share is done

/** The progress bar, in the place of the edit button while an edit runs. `say` tells screen readers of the phases. */
export function createProgress({ say }) {
  const bar = byId("progress");
  let began = 0;
  let before = 0; // steps of the phases that are over
  let phase = "";
  let phaseSteps = 0;

  return {
    begin() {
      byId("edit").hidden = true;
      byId("going").hidden = false;
      bar.removeAttribute("value");
      byId("phase").textContent = "Waiting for its turn";
      byId("steps-done").textContent = "";
      say("The edit has begun.");
      before = phaseSteps = 0;
      phase = "";
    },
    /** `later`: steps of the phases to come after the photo is found. */
    show(news, later) {
      if (news.phase !== phase) {
        if (!phase) began = performance.now();
        before += phaseSteps;
        phase = news.phase;
        byId("phase").textContent = PHASES[phase];
        say(PHASES[phase]);
      }
      phaseSteps = news.num_steps;
      const total = before + phaseSteps + (phase === "invert" ? later : 0);
      const share = (before + news.step) / total;
      bar.value = 100 * share;
      const seconds = ((performance.now() - began) / 1000) * (1 / share - 1);
      const forecast = share > EARLY && seconds > 1 ? `, ${Math.ceil(seconds)} s left` : "";
      byId("steps-done").textContent = `${news.step} of ${news.num_steps}${forecast}`;
    },
    end() {
      byId("going").hidden = true;
      byId("edit").hidden = false;
    },
  };
}
