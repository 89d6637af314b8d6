// Quantities as a person reads them.

export function bytes(amount) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (amount < 999.5 || unit === "GB") return `${figures(amount)} ${unit}`;
    amount /= 1000;
  }
}

// At most three figures that matter.
export function figures(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size >= 10) return String(Number(value.toFixed(1)));
  return size >= 0.01 ? String(Number(value.toFixed(2))) : value.toPrecision(2);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "never";
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

function clock(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const parts = hours ? [hours, minutes, seconds % 60] : [minutes, seconds % 60];
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

// A time of day where the clock counts from 1970, else seconds since the run's start.
export function instant(seconds) {
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 1e9) return clock(Math.floor(seconds));
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

const UNITS = { celsius: "°C", percent: "%", seconds: "s" };

// A reading: a number, a text, or a few of them by unit or name.
export function reading(value) {
  if (typeof value === "number") return figures(value);
  if (value === null || value === undefined) return "";
  if (typeof value !== "object") return String(value);
  return Object.entries(value)
    .map(([name, part]) => Object.hasOwn(UNITS, name) ? `${reading(part)} ${UNITS[name]}` : `${name.replaceAll("_", " ")} ${reading(part)}`)
    .join(", ");
}
