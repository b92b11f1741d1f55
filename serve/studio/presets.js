import { byId, capital, make } from "./dom.js";

/** The select of presets, shown where there is more than one. To choose one is to open the studio anew with it. */
export function createPresets({ presets, preset }) {
  const select = byId("preset");
  const options = presets.map(({ name, description }) =>
    make("option", { value: name, textContent: capital(description), selected: name === preset }),
  );
  select.replaceChildren(...options);
  select.value = preset;
  byId("presets").hidden = presets.length < 2;
  select.addEventListener("change", () => location.assign(`?preset=${encodeURIComponent(select.value)}`));

  return {
    lock(locked) {
      select.disabled = locked;
    },
  };
}
