// The chosen device or link: its figures, and what can be done to it. What breaks something needs a second press.

import { inject } from "./api.js";
import { armedButton } from "./armed.js";
import { Keyed, byId, factsIn, put, set } from "./dom.js";
import { bytes, duration, figures } from "./format.js";
import { linkKey, linkState, linkWords, sends, standing } from "./map.js";

export class Panel {
  constructor(onSaid) {
    this.onSaid = onSaid;
    this.facts = factsIn(byId("panel-facts"));
    const build = (action) => armedButton(action, (pressed) => this.#send(pressed));
    this.actions = new Keyed(byId("panel-actions"), build, (part, action) => {
      part.action = action;
    });
  }

  choose(chosen) {
    this.chosen = chosen;
    put(byId("panel-answer"), "");
    this.actions.show([], String);
    this.show(this.state);
  }

  show(state) {
    this.state = state;
    if (!this.chosen || !state) return;
    const { kind, key } = this.chosen;
    const subject = kind === "device" ? state.devices.find((d) => d.name === key) : state.links.find((l) => linkKey(l) === key);
    byId("panel-hint").hidden = true;
    if (!subject) return;
    put(byId("h-panel"), kind === "device" ? subject.name : `${subject.a} – ${subject.b}`);
    set(byId("panel"), "data-state", kind === "device" ? standing(subject) : subject.up ? "up" : linkState(subject));
    this.facts.show(kind === "device" ? deviceFacts(subject) : linkFacts(subject));
    const box = byId("panel-actions");
    const focused = box.contains(document.activeElement);
    this.actions.show(kind === "device" ? deviceActions(subject) : linkActions(subject), (action) => action.fault.fault);
    // The button that was pressed gave way to its opposite: the keyboard stays near.
    if (focused && !box.contains(document.activeElement)) box.querySelector("button")?.focus();
  }

  async #send(action) {
    const answer = byId("panel-answer");
    put(answer, `${action.label}: asked for`);
    try {
      await inject(action.fault);
      put(answer, `${action.label}: done`);
    } catch (error) {
      put(answer, `${action.label} failed: ${error.message}`);
      this.onSaid(`${action.label} failed: ${error.message}`);
    }
  }
}

function deviceFacts(device) {
  const is = ["is", device.role ? `${standing(device)}, ${device.role}` : standing(device)];
  if (!sends(device)) return [is];
  return [
    is,
    ["age of information", duration(device.age_s)],
    ["kept", figures(device.kept)],
    ["duplicates", figures(device.duplicates)],
    ["dead letters", figures(device.dead_letters)],
  ];
}

function linkFacts(link) {
  const facts = [
    ["is", linkWords(link)],
    ["on the air", `${bytes(link.bytes_per_s)}/s`],
    ["lost", `${figures(link.lost_per_s)} frames/s`],
  ];
  if (Number.isFinite(link.loss_ratio)) facts.push(["loss asked for", `${figures(link.loss_ratio * 100)} %`]);
  if (link.profile) facts.push(["profile", link.profile]);
  return facts;
}

function deviceActions(device) {
  const name = device.name;
  const verb = (fault, label, breaks) => ({ fault: { fault, device: name }, label: `${label} ${name}`, breaks });
  if (!device.up) return [verb("restart", "Restart", false)];
  const pause = device.paused ? verb("resume", "Resume", false) : verb("pause", "Pause", true);
  return [verb("crash", "Crash", true), pause];
}

function linkActions({ a, b, cut }) {
  if (!cut) return [{ fault: { fault: "link-down", a, b }, label: "Cut the link", breaks: true }];
  return [{ fault: { fault: "link-up", a, b }, label: "Heal the link", breaks: false }];
}
