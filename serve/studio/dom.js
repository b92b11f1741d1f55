/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** An icon from the symbols of index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Words with a capital letter first; names of files stay as they are. */
export const capital = (words) => (/\.\w{2,5}$/.test(words) ? words : words.charAt(0).toUpperCase() + words.slice(1));

export const prefersStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
