// Numbers, times and events into words for people.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TWO_DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const THREE_DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const DAY_AND_TIME = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZone: "UTC",
});
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["year", 31557600], ["month", 2629800], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

export const whole = (number) => WHOLE.format(number);

export const plain = (number) => (Number.isInteger(number) ? WHOLE : THREE_DIGITS).format(number);

export const plural = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;

/** A share as percent with the digits that matter: 12.3 %, 2.30 %, 0.052 %. */
export function percent(share) {
  if (share > 0 && share < 0.000005) return "< 0.001 %";
  if (share === 1) return "100 %";
  if (share < 0.001) return `${TWO_DIGITS.format(share * 100)} %`;
  return `${(share * 100).toFixed(share >= 0.1 ? 1 : 2)} %`;
}

/** A difference of two shares in percentage points, with its sign. */
export function points(difference) {
  if (Math.abs(difference) < 0.000005) return "±0 pts";
  const size = Math.abs(difference) * 100;
  return `${difference > 0 ? "+" : "−"}${size >= 0.1 ? size.toFixed(2) : TWO_DIGITS.format(size)} pts`;
}

/** How many equally likely items are as uncertain as this many nats. */
export function equallyLikely(nats) {
  const number = Math.exp(nats);
  return number < 10 ? TWO_DIGITS.format(number) : whole(Number(number.toPrecision(2)));
}

export const moment = (milliseconds) => `${DAY_AND_TIME.format(milliseconds)} UTC`;

/** "3 days ago" for an age in seconds. */
export function ago(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? ["second", 1];
  return RELATIVE.format(-Math.round(seconds / length), unit);
}

/** What an item is called: its title, or its id. */
export const nameOf = (one) => one.title ?? String(one.item_id);

/** Everything about an event of a history in one line. */
export function eventWords(event, attention) {
  return [
    nameOf(event),
    event.time === null ? null : moment(event.time),
    event.behavior,
    event.value === null ? null : `value ${plain(event.value)}`,
    event.known ? null : "not in the catalog",
    event.struck ? "struck out" : attention === null ? null : `attention ${percent(attention)}`,
  ].filter((part) => part !== null && part !== undefined).join(", ");
}
