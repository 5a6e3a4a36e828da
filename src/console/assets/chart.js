// Charts: lines over time by uPlot, and bars. Their numbers stand beside them as text, for those who do not see them.

import { el, keep } from "./dom.js";
import { clock, count } from "./show.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A line over the last `span` seconds. `show(times, values)` draws it anew: seconds since 1970, and numbers.
 * It reaches up to `least` at least. */
export function line(title, { signal, span = 600, tone = "--line", format = count, least = 1 } = {}) {
  const now = el("output.now", "–");
  const place = el("div.plot", { role: "img" });
  const node = keep(el("figure.chart", el("figcaption", el("span", title), now), place));
  let data = [[], []];
  let plot = null;
  let hovered = false;

  const tell = (at) => {
    const value = data[1][at];
    if (value === undefined || value === null) return;
    now.textContent = hovered ? `${format(value)} at ${clock(data[0][at] * 1000).slice(0, 8)}` : format(value);
  };
  // By the clock of whoever took the samples: the browser's may be another.
  const end = () => data[0].at(-1) ?? Date.now() / 1000;
  const axis = { stroke: () => color("--muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: () => color("--grid"), width: 1 };
  const options = (width) => ({
    width,
    height: 150,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    padding: [8, 8, 0, 0],
    scales: {
      x: { range: () => [end() - span, end()] },
      y: { range: (_, low, high) => [0, Math.max(least, high * 1.15)] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 90, values: (_, ticks) => ticks.map((tick) => clock(tick * 1000).slice(0, 5)), size: 26 },
      { ...axis, grid, size: 46, space: 36, values: (_, ticks) => ticks.map((tick) => format(tick)) },
    ],
    series: [{}, { stroke: () => color(tone), fill: () => color(`${tone}-fill`), width: 1.75, points: { show: false }, spanGaps: true }],
    hooks: {
      setCursor: [(self) => {
        hovered = self.cursor.left >= 0 && self.cursor.idx !== null;
        tell(hovered ? self.cursor.idx : data[1].findLastIndex((value) => value !== null));
      }],
    },
  });
  const fit = () => {
    const width = Math.floor(place.clientWidth);
    if (!width || !data[0].length) return;
    if (!plot) plot = new uPlot(options(width), data, place);
    else if (plot.width !== width) plot.setSize({ width, height: 150 });
  };
  const size = new ResizeObserver(fit);
  size.observe(place);
  const redraw = () => plot?.redraw(false);
  addEventListener("themechange", redraw, { signal });
  signal.addEventListener("abort", () => {
    size.disconnect();
    plot?.destroy();
  });
  return {
    node,
    show(times, values) {
      data = [times, values];
      fit();
      plot?.setData(data);
      const last = values.findLastIndex((value) => value !== null);
      if (!hovered) tell(last);
      const most = values.reduce((most, value) => Math.max(most, value ?? 0), 0);
      place.setAttribute("aria-label", `${title}: now ${format(values[last] ?? 0)}, at most ${format(most)} in the last minutes`);
    },
  };
}

/** Differences of counters as rates: of two neighbours each. */
export function rates(samples, name) {
  return samples.map((sample, at) => {
    if (!at) return null;
    const time = (new Date(sample.at) - new Date(samples[at - 1].at)) / 1000;
    return time > 0 ? Math.max(0, (Number(sample[name] ?? 0) - Number(samples[at - 1][name] ?? 0)) / time) : null;
  });
}

/** The mean time from an event's entry to the sockets, in seconds, between two neighbours each; null where nothing was written. */
export function lags(samples) {
  return samples.map((sample, at) => {
    const since = (name, number) => number(sample[name] ?? 0) - number(samples[at - 1][name] ?? 0);
    const writes = at ? since("writes", Number) : 0;
    return writes > 0 ? since("lagSum", (time) => Number.parseFloat(time)) / writes : null;
  });
}

/** A bar of a share, from 0 to 1. */
export function bar(share, tone = "") {
  const width = Math.max(0, Math.min(100, 100 * share)).toFixed(1);
  return el(`svg:svg.bar${tone && `.${tone}`}`, { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    el("svg:rect", { class: "all", width: 100, height: 8 }), el("svg:rect", { class: "part", width, height: 8 }));
}

/** Named counts as bars, the largest first. */
export function bars(counts) {
  const entries = Object.entries(counts).map(([name, value]) => [name, Number(value)]).filter(([, value]) => value).sort((a, b) => b[1] - a[1]);
  const sum = entries.reduce((sum, [, value]) => sum + value, 0);
  return el("ul.bars", entries.map(([name, value]) =>
    el("li", el("span", name), bar(sum ? value / sum : 0), el("span.number", count(value)))));
}
