import { byId } from "./dom.js";

const REACH = 4; // the strongest edit has a weight 4 times below the default's, the faintest 4 times above
const FALLBACK_WEIGHT = 0.004; // where the service leaves out the distance by default
const STRENGTHS = ["a hint", "gentle", "balanced", "strong", "all of it"];

/** The sliders and the words. `read` gives what an edit is asked with; `onChange` is called when the words change. */
export function createSettings({ schema, maxSteps, hasIdentity, onChange }) {
  const strength = byId("strength");
  const steps = byId("steps");
  const mix = byId("mix");
  const identity = byId("identity");
  const text = byId("text");
  const weight = schema.lambda_reg.default || FALLBACK_WEIGHT;
  const identityWeight = 2 * schema.lambda_id.default || 1; // at the slider's end
  let hasSound = false;

  steps.max = Math.min(Math.max(steps.max, schema.num_steps.default), maxSteps);
  steps.value = schema.num_steps.default;
  mix.value = schema.mix.default;
  identity.value = hasIdentity ? schema.lambda_id.default / identityWeight : 0;
  identity.disabled = !hasIdentity;
  byId("identity-note").hidden = hasIdentity;

  const words = () => text.value.trim();

  function tell() {
    const percent = Math.round(100 * mix.value);
    byId("strength-out").textContent = strengthWord(strength.value);
    strength.setAttribute("aria-valuetext", strengthWord(strength.value));
    byId("steps-out").textContent = steps.value;
    mix.disabled = !(words() && hasSound);
    byId("mix-note").hidden = !mix.disabled;
    byId("mix-out").textContent = mix.disabled ? "" : `${percent} % words`;
    byId("identity-out").textContent = identity.disabled ? "" : `${Math.round(100 * identity.value)} %`;
    for (const slider of [strength, steps, mix, identity]) {
      slider.style.setProperty("--at", (slider.value - slider.min) / (slider.max - slider.min));
    }
  }

  for (const slider of [strength, steps, mix, identity]) slider.addEventListener("input", tell);
  text.addEventListener("input", () => {
    tell();
    onChange();
  });
  tell();

  return {
    get words() {
      return words();
    },
    set hasSound(there) {
      hasSound = there;
      tell();
    },
    read() {
      const weaker = REACH ** (1 - 2 * strength.value);
      const asked = {
        num_steps: Number(steps.value),
        lambda_reg: rounded(weight * weaker),
        lambda_spread: rounded(schema.lambda_spread.default * weaker),
      };
      if (words()) asked.text = words();
      if (!mix.disabled) asked.mix = Number(mix.value);
      if (!identity.disabled) asked.lambda_id = rounded(identityWeight * identity.value);
      return asked;
    },
    /** Set everything as it was asked for before. */
    show(asked) {
      strength.value = strengthOf(asked, weight);
      steps.value = asked.num_steps;
      text.value = asked.text ?? "";
      mix.value = asked.mix ?? schema.mix.default;
      if (!identity.disabled) identity.value = (asked.lambda_id ?? 0) / identityWeight;
      tell();
    },
    /** In words, such as "strong, 60 steps". */
    describe: (asked) => `${strengthWord(strengthOf(asked, weight))}, ${asked.num_steps} steps`,
  };
}

const strengthWord = (value) => STRENGTHS[Math.min(4, Math.max(0, Math.round(4 * value)))];

const strengthOf = ({ lambda_reg: asked }, weight) => (1 - Math.log(asked / weight) / Math.log(REACH)) / 2;

const rounded = (weight) => Number(weight.toPrecision(3));
