// Buttons for what breaks something: they ask for a second press.

import { make, put, set } from "./dom.js";

const ARMED_MS = 4000;

// `action` is { label, breaks } and may be replaced in what is returned; `act(action)` does it.
export function armedButton(action, act) {
  const node = make("button", { type: "button", class: action.breaks ? "breaks" : "mends" }, action.label);
  const part = { node, action };
  let timer = 0;
  const disarm = () => {
    clearTimeout(timer);
    set(node, "data-armed", null);
    put(node, part.action.label);
  };
  node.addEventListener("blur", disarm);
  node.addEventListener("click", () => {
    if (part.action.breaks && !node.hasAttribute("data-armed")) {
      set(node, "data-armed", "");
      put(node, `${part.action.label}: press again`);
      timer = setTimeout(disarm, ARMED_MS);
      return;
    }
    disarm();
    act(part.action);
  });
  return part;
}
