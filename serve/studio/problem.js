import { byId, capital, icon, make } from "./dom.js";

/** The one place where errors are told: what failed, what to do, and a way to do it. */
export function createProblem() {
  const panel = byId("error");
  let ticking = 0;

  function clear() {
    clearInterval(ticking);
    panel.hidden = true;
    panel.replaceChildren();
  }

  /** `retry`: what "Try again" does, if that can help; `seconds`: do it by itself after so long. */
  function show(title, error, { retry, seconds = 0 } = {}) {
    clear();
    const close = make(
      "button",
      { type: "button", className: "bare close", ariaLabel: "Dismiss", onclick: clear },
      icon("close"),
    );
    const text = make(
      "div",
      {},
      make("strong", { textContent: title }),
      make("p", { textContent: sentence(error.message) }),
    );
    if (error.requestId) text.append(make("small", { textContent: `Request ${error.requestId}` }));
    panel.append(text, close);
    if (retry) panel.append(retryButton(retry, seconds));
    panel.hidden = false;
    panel.scrollIntoView({ block: "nearest" });
  }

  function retryButton(retry, seconds) {
    const button = make("button", {
      type: "button",
      className: "quiet",
      onclick: () => {
        clear();
        retry();
      },
    });
    let left = Math.ceil(seconds);
    const tell = () => (button.textContent = left > 0 ? `Trying again in ${left} s` : "Try again");
    tell();
    if (left > 0) {
      ticking = setInterval(() => {
        left -= 1;
        if (left <= 0) button.click();
        else tell();
      }, 1000);
    }
    return button;
  }

  return { show, clear };
}

const sentence = (message) => (/[.!?]$/.test(message) ? capital(message) : `${capital(message)}.`);
