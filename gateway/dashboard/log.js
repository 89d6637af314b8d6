// The event log: what the gateway tells, and what this page notices between two states. Newest first.
//
// A fault that was asked for is told by the gateway, and its effect is noticed here. That is one thing that
// happened, so it is one line: such a fault waits for its effect, and is told alone only where none comes.

import { byId, make } from "./dom.js";
import { instant } from "./format.js";
import { linkKey, standing } from "./map.js";

const SHOWN_MAX = 200;
const EFFECT_S_MAX = 3;

export class Log {
  constructor() {
    this.list = byId("events");
    this.told = new Set();
    this.expected = []; // faults whose effect has not been seen yet: { event, subjects }
    this.known = null;
  }

  say(t, text) {
    const node = make("li", {}, make("time", {}, instant(t)), ` ${text}`);
    this.list.prepend(node);
    while (this.list.childElementCount > SHOWN_MAX) this.list.lastElementChild.remove();
  }

  show(state) {
    this.now = state.now;
    this.#hear(state.events);
    const facts = noticed(state);
    for (const [key, fact] of facts) {
      const before = this.known?.get(key);
      if (before === undefined || before === fact) continue;
      const cause = this.expected.findIndex(({ subjects }) => subjects.includes(key));
      if (cause >= 0) this.expected.splice(cause, 1);
      this.say(state.now, `${key} ${fact}${cause >= 0 ? ", by hand" : ""}`);
    }
    this.known = facts;
    this.expected = this.expected.filter(({ event }) => {
      const waits = event.t > state.now - EFFECT_S_MAX;
      if (!waits) this.say(event.t, byHand(event));
      return waits;
    });
  }

  #hear(events) {
    for (const event of events) {
      const key = keyOf(event);
      if (this.told.has(key)) continue;
      this.told.add(key);
      const subjects = subjectsOf(event.fault);
      if (this.known && subjects.length) this.expected.push({ event, subjects });
      else this.say(event.t, event.fault ? byHand(event) : event.text);
    }
    // Forget what the gateway no longer tells.
    if (this.told.size > 4 * SHOWN_MAX) this.told = new Set(events.map(keyOf));
  }
}

const keyOf = (event) => `${event.t} ${event.text}`;
const byHand = (event) => `${event.text}, by hand`;
const linkSubject = (link) => `Link ${JSON.parse(linkKey(link)).join(" – ")}`;

// What of `noticed` such a fault changes, one of these: a link goes by both its names.
function subjectsOf(fault) {
  switch (fault?.fault) {
    case "crash": case "restart": case "pause": case "resume":
      return [fault.device];
    case "link-down": case "link-up":
      return [linkSubject(fault), linkSubject({ a: fault.b, b: fault.a })];
    default:
      return [];
  }
}

// What is worth a line when it changes, by subject.
function noticed(state) {
  const facts = new Map();
  for (const device of state.devices) facts.set(device.name, `is ${standing(device)}`);
  for (const link of state.links) facts.set(linkSubject(link), link.cut ? "is cut" : "is whole");
  for (const group of state.storage) {
    facts.set(`Group ${group.name}`, group.leader ? `is led by ${group.leader}` : "has no leader that is known");
    for (const replica of group.replicas) facts.set(`Replica ${replica.address}`, replica.answers ? "answers" : "is silent");
  }
  for (const { name, trouble } of state.destinations) {
    facts.set(`Destination ${name}`, trouble ? `is in trouble: ${trouble}` : "takes what it is given");
  }
  return facts;
}
