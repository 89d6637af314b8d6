// Each device as a card: state, age of information now and over the last minutes, its latest values.

import { Keyed, byId, draw, make, put, set } from "./dom.js";
import { duration, figures, reading } from "./format.js";
import { sends, standing } from "./map.js";

const STEP_S = 1.5;
const STEPS = 120;
const SCALE_S_MIN = 5;
const MARKS = { up: "●", paused: "‖", down: "✕" };

export class Cards {
  constructor(onChoose) {
    this.cards = new Keyed(byId("cards"), (device) => build(device, onChoose), (part, device) => {
      show(part, device, this.now);
    });
  }

  show(state) {
    this.now = state.now;
    // First those that send something; of the others there is only to say whether they are up.
    const [senders, others] = [true, false].map((does) => state.devices.filter((one) => sends(one) === does));
    this.cards.show([...senders, ...others], (device) => device.name);
  }
}

function build(device, onChoose) {
  const mark = make("span", { class: "mark", "aria-hidden": "true" });
  const name = make("button", { type: "button", class: "name" }, device.name);
  name.addEventListener("click", () => onChoose({ kind: "device", key: device.name }));
  const standing = make("span", { class: "standing" });
  const age = make("span", { class: "age" });
  const area = draw("path", { class: "area" });
  const line = draw("path", { class: "spark" });
  const scale = make("span", { class: "scale" });
  const chart = draw("svg", { viewBox: `0 0 ${STEPS} 30`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
  const readings = make("dl");
  const counts = make("p", { class: "counts" });
  const node = make(
    "li",
    {},
    make("div", { class: "top" }, mark, name, standing, age),
    make("div", { class: "chart" }, chart, scale),
    readings,
    counts,
  );
  return {
    node, mark, standing, age, area, line, scale, counts,
    ages: [], step: null,
    readings: new Keyed(readings, buildReading, (part, latest) => put(part.value, reading(latest.value))),
  };
}

function buildReading(latest) {
  const value = make("dd");
  return { node: make("div", {}, make("dt", {}, latest.kind), value), value };
}

function show(part, device, now) {
  const state = standing(device);
  set(part.node, "data-state", state);
  set(part.node, "data-sends", sends(device) ? "" : null);
  put(part.mark, MARKS[state]);
  put(part.standing, state === "up" ? device.role : `${device.role} ${state}`.trim());
  put(part.age, device.kept ? duration(device.age_s) : "");
  part.readings.show(device.latest.filter((latest) => latest.value !== null), (latest) => latest.kind);
  const oddities = [[device.duplicates, "duplicates"], [device.dead_letters, "dead letters"]];
  const odd = oddities.filter(([count]) => count).map(([count, what]) => `, ${figures(count)} ${what}`);
  put(part.counts, device.kept ? `${figures(device.kept)} kept${odd.join("")}` : `nothing heard yet${odd.join("")}`);
  remember(part, device, now);
}

// One value for each STEP_S: the largest age in it. Redrawn when a step is over.
function remember(part, device, now) {
  const age = device.kept && Number.isFinite(device.age_s) ? device.age_s : null;
  const step = Math.floor(now / STEP_S);
  if (part.step === null || step < part.step || step - part.step > STEPS) {
    part.ages = [];
  } else if (step === part.step) {
    if (age !== null) part.ages[part.ages.length - 1] = Math.max(age, part.ages.at(-1) ?? 0);
    return;
  } else {
    for (let missed = part.step + 1; missed < step; missed++) part.ages.push(null);
  }
  part.step = step;
  part.ages.push(age);
  part.ages.splice(0, part.ages.length - STEPS);
  plot(part);
}

function plot(part) {
  const top = Math.max(SCALE_S_MIN, ...part.ages.map((age) => age ?? 0));
  const left = STEPS - part.ages.length;
  const runs = [];
  let run = null;
  part.ages.forEach((age, i) => {
    if (age === null) return void (run = null);
    if (!run) runs.push((run = []));
    run.push(`${left + i} ${(29 - (27 * age) / top).toFixed(1)}`);
  });
  set(part.line, "d", runs.map((points) => `M${points.join("L")}`).join(""));
  set(part.area, "d", runs.map((points) => {
    const [first, last] = [points[0], points.at(-1)].map((point) => point.split(" ")[0]);
    return `M${first} 30L${points.join("L")}L${last} 30Z`;
  }).join(""));
  put(part.scale, runs.length ? duration(top) : "");
}
