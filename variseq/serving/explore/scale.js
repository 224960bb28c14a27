// Positions of events along a line, and ticks with words for a part of the line.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR, MONTH = 30.44 * DAY, YEAR = 365.25 * DAY;
const STEPS = [
  [SECOND, 1], [SECOND, 10], [MINUTE, 1], [MINUTE, 5], [MINUTE, 15], [HOUR, 1], [HOUR, 3], [HOUR, 12], [DAY, 1], [DAY, 2],
  [DAY, 7], [DAY, 14], [MONTH, 1], [MONTH, 3], [MONTH, 6], [YEAR, 1], [YEAR, 2], [YEAR, 5], [YEAR, 10],
];

const formatter = (options) => new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" });
const WORDS = [
  [YEAR, formatter({ year: "numeric" })],
  [MONTH, formatter({ month: "short", year: "numeric" })],
  [DAY, formatter({ day: "numeric", month: "short", year: "2-digit" })],
  [MINUTE, formatter({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" })],
  [0, formatter({ hour: "2-digit", minute: "2-digit", second: "2-digit" })],
];

/** The number of the visit of each event: events at most `gap` milliseconds apart are one; null: each stands alone. */
export function visits(events, gap) {
  let number = -1;
  return events.map((one, index) => {
    const before = events[index - 1]?.time ?? null;
    const isSame = gap !== null && before !== null && one.time !== null && one.time - before <= gap;
    if (!isSame) number += 1;
    return number;
  });
}

/** A position for each event; those of a visit have one, that of its first event. */
export function positions(events, scale, gap) {
  const visit = visits(events, gap);
  if (scale === "order") return visit;
  const at = positionsInTime(events);
  const begins = at.filter((_, index) => visit[index] !== visit[index - 1]);
  return visit.map((number) => begins[number]);
}

/** The time of each event. What has no time lies between its neighbors, or after the last. */
function positionsInTime(events) {
  const times = events.map((one) => one.time);
  const known = times.filter((time) => time !== null);
  const step = Math.max((known.at(-1) - known[0]) / 25, MINUTE);
  return times.map((time, index) => {
    if (time !== null) return time;
    const [earlier, numBack] = nearest(times, index, -1);
    const [later, numAhead] = nearest(times, index, 1);
    if (earlier === null) return later - step * numAhead;
    if (later === null) return earlier + step * numBack;
    return earlier + ((later - earlier) * numBack) / (numBack + numAhead);
  });
}

function nearest(times, index, direction) {
  for (let far = 1; times[index + far * direction] !== undefined; far += 1) {
    if (times[index + far * direction] !== null) return [times[index + far * direction], far];
  }
  return [null, 0];
}

/** From where to where a line reaches that shows all positions, with a margin at both ends. */
export function whole(at, scale) {
  if (!at.length) return [0, 1];
  const [first, last] = [Math.min(...at), Math.max(...at)];
  const margin = last > first ? (last - first) * 0.03 : scale === "order" ? 1 : HOUR;
  return [first - margin, last + margin];
}

/** About as many ticks as fit, each [position, words]. */
export function ticks([from, to], scale, most) {
  return scale === "order" ? numberTicks(from, to, most) : timeTicks(from, to, most);
}

function numberTicks(from, to, most) {
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const step = Math.max(1, [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough);
  const found = [];
  const first = Math.max(step, Math.ceil((from + 1) / step) * step);
  if (step > 1 && from < 0) found.push([0, "1"]);
  for (let number = first; number - 1 <= to; number += step) found.push([number - 1, String(number)]);
  return found;
}

function timeTicks(from, to, most) {
  const [unit, count] = STEPS.find(([unit, count]) => unit * count >= (to - from) / most) ?? [YEAR, Math.ceil((to - from) / most / YEAR)];
  const words = WORDS.find(([least]) => unit >= least)[1];
  const found = [];
  for (let position = firstTick(from, unit, count); position <= to; position = nextTick(position, unit, count)) {
    if (position >= from) found.push([position, words.format(position)]);
  }
  return found;
}

function firstTick(from, unit, count) {
  const date = new Date(from);
  if (unit === YEAR) return Date.UTC(Math.floor(date.getUTCFullYear() / count) * count, 0);
  if (unit === MONTH) return Date.UTC(date.getUTCFullYear(), Math.floor(date.getUTCMonth() / count) * count);
  return Math.ceil(from / (unit * count)) * unit * count;
}

function nextTick(position, unit, count) {
  const date = new Date(position);
  if (unit === YEAR) return Date.UTC(date.getUTCFullYear() + count, 0);
  if (unit === MONTH) return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + count);
  return position + unit * count;
}
