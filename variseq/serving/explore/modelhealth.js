// Facts about the model, tests of its latent with their results, and warnings.

import { drawn, element } from "./dom.js";
import { equallyLikely, moment, percent, plain, whole } from "./words.js";

const FACTS = [
  ["Version", (health) => health.model_version ?? health.version],
  ["Made", (health) => (health.created ? moment(Date.parse(health.created)) : null)],
  ["Items", (health) => health.network?.num_items],
  ["Users trained on", (health) => health.protocol?.num_users],
  ["Events trained on", (health) => health.protocol?.num_train_events],
  ["Events attended to", (health) => health.network?.max_seq_len && `at most ${whole(health.network.max_seq_len)}`],
  ["Hidden size", (health) => health.network?.hidden_size],
  ["Latent dimensions", (health) => health.network?.latent_dim],
  ["Layers", (health) => health.network?.num_layers],
  ["Attention", (health) => health.network?.attention],
  ["Split", (health) => health.protocol?.method],
  ["Differential privacy", (health) => health.privacy && `ε = ${health.privacy.epsilon.toPrecision(3)}, δ = ${health.privacy.delta.toPrecision(2)}; ${health.privacy.unit}`],
  ["NDCG@10 on validation", (health) => health.validation?.ndcg],
  ["NLL on validation", (health) => isNumber(health.validation?.nll) ? `${nats(health.validation.nll)}, as of ${equallyLikely(health.validation.nll)} items` : null],
];

/** Name, field, words of the value, least healthy value and what it means. */
const TESTS = [
  ["Active dimensions", "active_share", percent, 0.1, "dimensions of the posterior that differ between histories"],
  ["KL", "kl", (value) => nats(value), null, "divergence of the posterior from the prior"],
  ["Mutual information", "mutual_information", (value) => nats(value), null, "information of the posterior about the history"],
  ["Swap gap", "swap_gap", (value) => nats(value), 0.05, "how much worse the loss is with the posteriors of another user"],
  ["Prior gap", "prior_gap", (value) => nats(value), 0.05, "how much worse the loss is with the prior in place of the posterior"],
];

/** Places in a history at which the groups of `kl_per_position` begin; as in the package. */
const POSITION_GROUPS = ["0", "1", "2", "3–5", "6–10", "11–20", "21–50", "51–100", "101–200", "201+"];
const CHART_HEIGHT = 72;

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const nats = (value) => (isNumber(value) ? `${plain(value)} nats` : null);

export function showModel(root, health) {
  const posterior = health.posterior ?? {};
  root.replaceChildren(status(health.alarms ?? [], posterior), factList(health), tests(posterior), element("div", { class: "charts" }, ...charts(posterior)));
}

function status(alarms, posterior) {
  if (alarms.length) {
    const rows = alarms.map((alarm) => element("li", {}, String(alarm)));
    return element("div", { class: "notice error" }, element("p", {}, "The posterior has alarms:"), element("ul", { class: "bullets" }, ...rows));
  }
  if (!isNumber(posterior.swap_gap)) return element("p", { class: "status" }, "Nothing is recorded of the posterior of this model.");
  return element("p", { class: "status" }, element("span", { class: "good" }, "✓ No alarms."), " The posteriors are read when the next item is predicted.");
}

function factList(health) {
  const facts = FACTS.map(([name, of]) => [name, of(health)]).filter(([, value]) => value !== null && value !== undefined);
  return element("dl", { class: "model-facts" }, ...facts.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, isNumber(value) ? plain(value) : String(value)))));
}

function tests(posterior) {
  const measured = TESTS.filter(([, field]) => isNumber(posterior[field]));
  if (!measured.length) return "";
  const rows = measured.map(([name, field, words, least, meaning]) => element("tr", {},
    element("th", { scope: "row" }, name, element("span", { class: "details" }, meaning)),
    element("td", {}, words(posterior[field])),
    element("td", {}, least === null ? "–" : verdictOf(posterior[field] >= least, words(least)))));
  return element("div", { class: "scroll-box" }, element("h3", {}, "Is the latent used?"),
    element("table", { "aria-label": "Tests of the latent" },
      element("thead", {}, element("tr", {}, ...["Test", "Value", "Result"].map((words) => element("th", { scope: "col" }, words)))),
      element("tbody", {}, ...rows)));
}

function verdictOf(isHealthy, bound) {
  return element("span", { class: isHealthy ? "good" : "bad" }, isHealthy ? "✓ good" : `✕ below ${bound}`);
}

function charts(posterior) {
  const dimensions = (posterior.kl_per_dimension ?? []).filter(isNumber).sort((a, b) => b - a);
  const groups = (posterior.kl_per_position ?? []).map((value, position) => [POSITION_GROUPS[position] ?? "", value]).filter(([, value]) => isNumber(value));
  const found = [];
  if (dimensions.length) {
    const range = `${whole(dimensions.length)} dimensions, ${plain(dimensions.at(-1))} to ${plain(dimensions[0])} nats`;
    found.push(chart("Rate of each dimension of a posterior", range, dimensions.map((value) => ["", value])));
  }
  if (groups.length) {
    const words = `${plain(groups[0][1])} nats after ${groups[0][0]} events, ${plain(groups.at(-1)[1])} after ${groups.at(-1)[0]}`;
    found.push(chart("Rate by the number of events before", words, groups));
  }
  return found;
}

function chart(title, words, bars) {
  const most = Math.max(...bars.map(([, value]) => value), 1e-9);
  const hasNames = bars.some(([name]) => name !== "");
  const step = 100 / bars.length;
  const shapes = bars.map(([, value], position) => drawn("rect", {
    x: position * step, width: step * 0.78, y: CHART_HEIGHT * (1 - Math.max(value, 0) / most), height: (CHART_HEIGHT * Math.max(value, 0)) / most,
  }));
  const names = hasNames ? element("div", { class: "chart-names", "aria-hidden": "true" }, ...bars.map(([name]) => element("span", {}, name))) : null;
  return element("figure", {}, element("h3", {}, title),
    drawn("svg", { class: "chart", viewBox: `0 0 100 ${CHART_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...shapes),
    names, element("figcaption", { class: "fine" }, words));
}
