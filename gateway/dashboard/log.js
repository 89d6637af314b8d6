// The event log: what the gateway tells, and what this page notices between two states. Newest first.

import { byId, make } from "./dom.js";
import { instant } from "./format.js";
import { linkKey, standing } from "./map.js";

const SHOWN_MAX = 200;

export class Log {
  constructor() {
    this.list = byId("events");
    this.told = new Set();
    this.known = null;
  }

  say(t, text) {
    const node = make("li", {}, make("time", {}, instant(t)), ` ${text}`);
    this.list.prepend(node);
    while (this.list.childElementCount > SHOWN_MAX) this.list.lastElementChild.remove();
  }

  show(state) {
    this.now = state.now;
    for (const event of state.events) {
      const key = `${event.t} ${event.text}`;
      if (this.told.has(key)) continue;
      this.told.add(key);
      this.say(event.t, event.text);
    }
    // Forget what the gateway no longer tells.
    if (this.told.size > 4 * SHOWN_MAX) this.told = new Set(state.events.map((event) => `${event.t} ${event.text}`));
    const facts = noticed(state);
    for (const [key, fact] of facts) {
      const before = this.known?.get(key);
      if (before !== undefined && before !== fact) this.say(state.now, `${key} ${fact}`);
    }
    this.known = facts;
  }
}

// What is worth a line when it changes, by subject.
function noticed(state) {
  const facts = new Map();
  for (const device of state.devices) facts.set(device.name, `is ${standing(device)}`);
  for (const link of state.links) facts.set(`Link ${JSON.parse(linkKey(link)).join(" – ")}`, link.up ? "is whole" : "is cut");
  for (const group of state.storage) {
    facts.set(`Group ${group.name}`, group.leader ? `is led by ${group.leader}` : "has no leader that is known");
    for (const replica of group.replicas) facts.set(`Replica ${replica.address}`, replica.answers ? "answers" : "is silent");
  }
  for (const { name, trouble } of state.destinations) {
    facts.set(`Destination ${name}`, trouble ? `is in trouble: ${trouble}` : "takes what it is given");
  }
  return facts;
}
