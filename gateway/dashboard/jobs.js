// Jobs: submit one, follow it, cancel it, see what it came to. The gateway is asked only while this part of the
// page can be seen.

import { askJob, askJobs, cancelJob, csvAddress, firstRows, hasToken, saveWithToken, submitJob } from "./api.js";
import { armedButton } from "./armed.js";
import { Keyed, byId, factsIn, make, put, set } from "./dom.js";
import { bytes, duration, figures } from "./format.js";
import { alerting, rows } from "./tables.js";

const BUSY_MS = 700; // between two questions while a job runs
const CALM_MS = 3000;
const PAUSE_MS_MAX = 8000;
const ROWS_MAX = 20;
const TASKS_MAX = 100;
const CELL_CHARS_MAX = 120;
const MARKS = { planning: "…", running: "▸", done: "●", failed: "✕", cancelled: "–" };
const TASKS = ["task", "state", "worker", "host", "attempts", "backup", "progress", "seconds"];

const ended = (job) => ["done", "failed", "cancelled"].includes(job.state);

export class Jobs {
  constructor() {
    this.chosen = null; // the id of the job that is shown
    this.job = null; // it, with its tasks, as last heard
    this.fetched = null; // the id of the job whose rows are shown or on their way
    this.asked = 0;
    this.ready = new Keyed(byId("job-ready"), (_, name) => ({ node: make("option", { value: name }, name) }), () => {});
    this.workers = factsIn(byId("job-workers"));
    this.list = new Keyed(byId("job-list"), (job) => this.#buildItem(job), (part, job) => this.#showItem(part, job));
    this.facts = factsIn(byId("job-facts"));
    this.tasks = rows("job-tasks", TASKS, ["state", "worker", "host", "backup"])(showTask);
    this.bad = new Keyed(byId("job-bad"), () => ({ node: make("li") }), (part, bad) => put(part.node, bad));
    this.cancel = armedButton({ label: "Cancel this job", breaks: true }, () => this.#cancel());
    byId("job-actions").append(this.cancel.node);
    byId("job-name").addEventListener("change", () => this.#showChoice());
    byId("job-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("job-again").addEventListener("click", () => this.#fetchRows(this.job));
    byId("job-csv").addEventListener("click", (event) => this.#save(event));
    byId("jobs").addEventListener("toggle", () => this.#follow());
    this.seen = false;
    new IntersectionObserver((entries) => {
      this.seen = entries.at(-1).isIntersecting;
      this.#follow();
    }).observe(byId("jobs-body"));
    document.addEventListener("visibilitychange", () => this.#follow());
  }

  #watched() {
    return this.seen && byId("jobs").open && document.visibilityState === "visible";
  }

  async #follow() {
    if (this.following) return;
    this.following = true;
    let failures = 0;
    while (this.#watched()) {
      failures = (await this.#ask()) ? 0 : failures + 1;
      const pause = this.busy ? BUSY_MS : CALM_MS;
      await new Promise((resolve) => setTimeout(resolve, Math.min(pause * 1.5 ** failures, PAUSE_MS_MAX)));
    }
    this.following = false;
  }

  // Whether the gateway answered. Only the answer to the last question is shown.
  async #ask() {
    const number = ++this.asked;
    const trouble = byId("jobs-trouble");
    try {
      const told = await askJobs();
      if (number !== this.asked) return true;
      this.#show(told);
      const known = told.jobs.find((job) => job.id === this.chosen);
      if (!known) byId("job").hidden = true;
      else if (!(this.job?.id === known.id && ended(this.job))) {
        const job = await askJob(known.id);
        if (number === this.asked) this.#showJob(job);
      }
      trouble.hidden = true;
      return true;
    } catch (error) {
      put(trouble, `The jobs are not to be had: ${error.message}`);
      trouble.hidden = false;
      return false;
    }
  }

  #show({ jobs, workers, ready_made }) {
    const first = !this.about;
    this.about = ready_made;
    this.ready.show(Object.keys(ready_made).sort(), (name) => name);
    if (first && !byId("job-source").value) byId("job-name").selectedIndex = 0;
    this.#showChoice();
    this.workers.show(Object.entries(workers));
    byId("job-workers-none").hidden = Object.keys(workers).length > 0;
    this.list.show(jobs, (job) => job.id);
    byId("job-list-none").hidden = jobs.length > 0;
    this.busy = jobs.some((job) => !ended(job));
  }

  // ------------------------------------------------------------------------------------------- submitting

  #showChoice() {
    const name = byId("job-name").value;
    byId("job-own").hidden = name !== "";
    put(byId("job-about"), name ? (this.about?.[name] ?? "") : "Python that defines “job”; docs/jobs.md tells what it can say.");
  }

  async #submit() {
    if (this.submitting) return;
    const answer = byId("job-answer");
    const box = byId("job-parameters");
    set(box, "aria-invalid", null);
    const name = byId("job-name").value;
    const source = byId("job-source");
    if (!name && !source.value.trim()) {
      put(answer, "There is nothing in the job file yet.");
      source.focus();
      return;
    }
    let wanted;
    try {
      const parameters = parametersIn(box.value);
      const own = { name: byId("job-title").value.trim() || "job", source: source.value, parameters };
      wanted = name ? { name, parameters } : own;
    } catch (error) {
      put(answer, error.message);
      set(box, "aria-invalid", "true");
      box.focus();
      return;
    }
    this.submitting = true;
    put(answer, `${wanted.name}: asked for`);
    try {
      const job = await submitJob(wanted);
      put(answer, `${job.name} runs as job ${job.id}`);
      this.#choose(job.id);
    } catch (error) {
      put(answer, `It was not taken: ${error.message}`);
    } finally {
      this.submitting = false;
    }
  }

  // ------------------------------------------------------------------------------------------- the list

  #buildItem(job) {
    const mark = make("span", { class: "mark", "aria-hidden": "true" });
    const name = make("button", { type: "button", class: "name" }, job.name);
    name.addEventListener("click", () => this.#choose(job.id));
    const state = make("span", { class: "standing" });
    const id = make("span", { class: "age" }, job.id);
    const counts = make("p", { class: "counts" });
    return { node: make("li", {}, make("div", { class: "top" }, mark, name, state, id), counts), mark, name, state, counts };
  }

  #showItem(part, job) {
    set(part.node, "data-state", job.state);
    set(part.name, "aria-pressed", job.id === this.chosen);
    put(part.mark, MARKS[job.state] ?? "");
    put(part.state, job.state);
    const done = job.state === "done" ? `${figures(job.rows)} rows of ${figures(job.records)} records` : progress(job);
    put(part.counts, `${done}, ${duration(job.seconds)}`);
  }

  // ------------------------------------------------------------------------------------------- the job

  #choose(id) {
    this.chosen = id;
    if (this.job?.id === id) byId("job").scrollIntoView({ block: "nearest" });
    for (const [key, part] of this.list.parts) set(part.name, "aria-pressed", key === id);
    this.#ask();
  }

  #showJob(job) {
    const first = this.job?.id !== job.id;
    const before = first ? null : this.job.state;
    this.job = job;
    const box = byId("job");
    set(box, "data-state", job.state);
    put(byId("h-job"), `${job.name}, job ${job.id}`);
    put(byId("job-state"), `${MARKS[job.state] ?? ""} ${job.state}`);
    alerting(byId("job-problem"), job.problem, job.problem !== "");
    this.facts.show(facts(job));
    for (const [id, done, of] of [["job-maps", job.maps_done, job.maps], ["job-reduces", job.reduces_done, job.reduces]]) {
      set(byId(id), "max", Math.max(1, of));
      set(byId(id), "value", done);
      put(byId(`${id}-count`), `${done} of ${of}`);
    }
    // On one scale: moving less than was read is why the work went to the data.
    const amounts = { read: job.read_bytes, moved: job.read_far_bytes + job.shuffled_bytes, result: job.result_bytes };
    const most = Math.max(1, ...Object.values(amounts));
    for (const [name, amount] of Object.entries(amounts)) {
      set(byId(`job-${name}-bar`), "width", (100 * amount) / most);
      put(byId(`job-${name}-bytes`), bytes(amount));
    }
    const bad = job.bad.map(([, record, error]) => `${record}: ${error}`);
    byId("job-bad-part").hidden = job.bad_records === 0;
    put(byId("job-bad-count"), `${figures(job.bad_records)} bad records were left out${bad.length ? ", such as" : ""}`);
    this.bad.show(bad, (text) => text);
    this.tasks.show(job.tasks.slice(0, TASKS_MAX), (task) => `${task.kind} ${task.task}`);
    const rest = job.tasks.length - TASKS_MAX;
    put(byId("job-tasks-rest"), rest > 0 ? `and ${figures(rest)} more` : "");
    byId("job-actions").hidden = ended(job);
    byId("job-result").hidden = job.state !== "done";
    box.hidden = false;
    if (first) box.scrollIntoView({ block: "nearest" });
    if (before && before !== job.state && ended(job)) put(byId("job-answer"), `${job.name}, job ${job.id}, is ${job.state}`);
    if (job.state === "done" && this.fetched !== job.id) this.#fetchRows(job);
  }

  async #cancel() {
    const { id, name } = this.job;
    const answer = byId("job-answer");
    try {
      const job = await cancelJob(id);
      put(answer, `${name}, job ${id}, is ${job.state}`);
      // The button is about to go: the keyboard stays at the job.
      if (byId("job-actions").contains(document.activeElement)) byId("h-job").focus({ preventScroll: true });
    } catch (error) {
      put(answer, `Job ${id} was not cancelled: ${error.message}`);
    }
    this.#ask();
  }

  // ------------------------------------------------------------------------------------------- its result

  async #fetchRows(job) {
    this.fetched = job.id;
    const count = byId("job-rows-count");
    const table = byId("job-rows");
    table.replaceChildren();
    set(byId("job-csv"), "href", csvAddress(job.id));
    set(byId("job-csv"), "download", fileName(job));
    byId("job-csv").hidden = byId("job-again").hidden = true;
    put(count, "The result is on its way…");
    try {
      const found = await firstRows(job.id, ROWS_MAX);
      if (this.fetched !== job.id) return; // another job was chosen meanwhile
      fillTable(table, found, job.key_names);
      const all = found.length < ROWS_MAX ? found.length : job.rows;
      put(count, all > found.length ? `The first ${found.length} of ${figures(all)} rows` : all === 1 ? "One row" : `${all || "No"} rows`);
      byId("job-csv").hidden = false;
    } catch (error) {
      if (this.fetched !== job.id) return;
      put(count, `The result is not to be had: ${error.message}`);
      byId("job-again").hidden = false;
    }
  }

  async #save(event) {
    if (!hasToken()) return; // the link does it
    event.preventDefault();
    try {
      await saveWithToken(csvAddress(this.job.id), fileName(this.job));
    } catch (error) {
      put(byId("job-answer"), `The CSV is not to be had: ${error.message}`);
    }
  }
}

const fileName = (job) => `${job.name}-${job.id}.csv`.replaceAll(/[^\w.-]+/g, "-");

// One name=value a line; a value may have anything in it.
function parametersIn(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf("=");
    const name = line.slice(0, Math.max(0, at)).trim();
    if (!name) throw new Error(`A parameter is name=value, and this is ${line.trim()}`);
    return [name, line.slice(at + 1).trim()];
  }));
}

function progress(job) {
  if (job.state === "planning") return "being planned";
  return `maps ${job.maps_done}/${job.maps}, reduces ${job.reduces_done}/${job.reduces}`;
}

function facts(job) {
  const told = [["took", duration(job.seconds)], ["records", figures(job.records)], ["rows", figures(job.rows)]];
  const given = Object.entries(job.parameters).map(([name, value]) => `${name}=${value}`);
  if (given.length) told.push(["parameters", given.join(", ")]);
  told.push(["maps where their data are", `${job.local_maps} of ${job.maps_done}`]);
  told.push(["read from other hosts", bytes(job.read_far_bytes)], ["between workers", bytes(job.shuffled_bytes)]);
  const slow = job.tasks.filter((task) => task.backup && task.state !== "completed");
  const now = slow.length ? `; now ${slow.map((task) => `${task.kind} ${task.task}`).join(", ")}` : "";
  told.push(["backups of stragglers", `${job.backups}${now}`], ["attempts lost", figures(job.lost_attempts)]);
  told.push(["bad records", figures(job.bad_records)]);
  const counters = Object.entries(job.counters).map(([name, by]) => `${name} ${figures(by)}`);
  if (counters.length) told.push(["counters", counters.join(", ")]);
  return told;
}

function showTask(cells, task) {
  put(cells.task, `${task.kind} ${task.task}`);
  put(cells.state, task.state);
  put(cells.worker, task.worker);
  put(cells.host, task.kind !== "map" || !task.worker ? "" : task.local ? "its own" : "another");
  put(cells.attempts, task.attempts);
  put(cells.backup, task.backup ? "yes" : "");
  put(cells.progress, figures(Math.max(0, task.progress)));
  put(cells.seconds, task.seconds ? duration(task.seconds) : "");
}

function fillTable(table, found, keyNames) {
  if (!found.length) return;
  // The key's columns first, as in the CSV: an object puts names that are numbers before all others.
  const names = [...new Set([...keyNames, ...found.flatMap(Object.keys)])];
  const words = new Set(names.filter((name) => found.some((row) => typeof (row[name] ?? 0) !== "number")));
  const cell = (tag, name, text, more = {}) => make(tag, words.has(name) ? { class: "text", ...more } : more, text);
  const head = make("tr", {}, ...names.map((name) => cell("th", name, name, { scope: "col" })));
  const body = found.map((row) => make("tr", {}, ...names.map((name, i) => {
    return cell(i ? "td" : "th", name, shown(row[name]), i ? {} : { scope: "row" });
  })));
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > CELL_CHARS_MAX ? `${text.slice(0, CELL_CHARS_MAX)}…` : text;
}
