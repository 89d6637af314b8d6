// The gateway's API as this page uses it: the state as it changes, pictures, faults, and jobs.

const STATE = "/api/v1/state";
const EVENTS = "/api/v1/events";
const FAULTS = "/api/v1/faults";
const JOBS = "/api/v1/jobs";
const PAUSE_MS = 1000;
const PAUSE_MS_MAX = 8000;
const SILENCE_MS_MAX = 12000; // of a stream; one that says less is taken for broken

let token = sessionStorage.getItem("birdhouse-token") ?? "";

export function useToken(given) {
  token = given;
  sessionStorage.setItem("birdhouse-token", given);
}

export class Denied extends Error {}

async function ask(address, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(address, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) throw new Denied("the gateway wants a token");
  if (!answer.ok) throw new Error(await why(answer));
  return answer;
}

async function why(answer) {
  const text = await answer.text();
  try {
    const body = JSON.parse(text);
    const said = body.problem ?? body.detail ?? body.error ?? text;
    return typeof said === "string" ? said : JSON.stringify(said);
  } catch {
    return text.slice(0, 200) || `the gateway answered ${answer.status}`;
  }
}

function post(address, document) {
  return ask(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(document),
  });
}

export const inject = (fault) => post(FAULTS, fault);

const jobAddress = (id) => `${JOBS}/${encodeURIComponent(id)}`;
const brief = () => ({ signal: AbortSignal.timeout(SILENCE_MS_MAX) });

// All jobs without their tasks, the workers, the ready-made jobs.
export const askJobs = async () => (await ask(JOBS, brief())).json();

export const askJob = async (id) => (await ask(jobAddress(id), brief())).json();

export const submitJob = async (wanted) => (await post(JOBS, wanted)).json();

export const cancelJob = async (id) => (await ask(jobAddress(id), { method: "DELETE" })).json();

export const csvAddress = (id) => `${jobAddress(id)}/result?format=csv`;

// A link sends no token: where there is one, the file is fetched here and given to the browser.
export async function saveWithToken(address, name) {
  const blob = URL.createObjectURL(await (await ask(address)).blob());
  const link = document.createElement("a");
  link.href = blob;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(blob), 60_000);
}

export const hasToken = () => token !== "";

// The first rows of a result, as objects; no more of it is read than that.
export async function firstRows(id, most) {
  const stop = new AbortController();
  try {
    const answer = await ask(`${jobAddress(id)}/result?format=ndjson`, { signal: stop.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      text += value ?? "";
      const lines = text.split("\n");
      if (done || lines.length > most) return lines.slice(0, most).filter(Boolean).map((line) => JSON.parse(line));
    }
  } finally {
    stop.abort();
  }
}

// A bitmap to be drawn on a canvas: so a picture can be asked for with a token, and needs no blob: address.
export async function picture(key) {
  const answer = await ask(`/api/v1/objects/${encodeURIComponent(key)}`);
  return createImageBitmap(await answer.blob());
}

// Calls `onState(document)` for every state and `onFeed("live" | "polling" | "lost" | "denied")` on changes.
// Where there is no stream to be had, the state is asked for instead. Never returns.
export async function follow(onState, onFeed) {
  let pause = PAUSE_MS;
  for (;;) {
    try {
      await stream((state) => {
        pause = PAUSE_MS;
        onFeed("live");
        onState(state);
      });
    } catch (error) {
      console.debug(`no stream: ${error.message}`);
    }
    try {
      onState(await (await ask(STATE, { signal: AbortSignal.timeout(SILENCE_MS_MAX) })).json());
      onFeed("polling");
      pause = PAUSE_MS;
    } catch (error) {
      onFeed(error instanceof Denied ? "denied" : "lost");
      pause = Math.min(pause * 1.5, PAUSE_MS_MAX);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Server-sent events by fetch, because EventSource cannot send a token. Ends when the stream does.
async function stream(onState) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), SILENCE_MS_MAX);
  try {
    const answer = await ask(EVENTS, { signal: stop.signal, headers: { Accept: "text/event-stream" } });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENCE_MS_MAX);
      const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = parts.pop();
      const states = parts.map(dataOfState).filter(Boolean);
      // Where several came at once, the page was slow: the last is the truth.
      if (states.length) onState(JSON.parse(states.at(-1)));
    }
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

function dataOfState(event) {
  let name = "message";
  const data = [];
  for (const line of event.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  return name === "state" ? data.join("\n") : "";
}
