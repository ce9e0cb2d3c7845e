"use strict";
// Shared by the drawing scripts: the report's numbers, SVG elements, scales, numbers in words.

const REPORT = JSON.parse(document.getElementById("report-data").textContent);

// A number of the report: null, "NaN" and "Infinity" become values that isFinite() refuses.
const toNumber = (value) => (value === null || value === undefined ? NaN : Number(value));

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function words(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return size >= 1e4 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
}

// Round steps that cut [low, high] into about `count` parts.
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

// 1, 10, 100 ...; with 2 and 5 between when there are few; linear steps inside a single decade.
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const multiples = decades < 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / 6));
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    if (e % every) continue;
    for (const m of multiples) {
      const tick = Number((m * 10 ** e).toPrecision(6));
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks.length > 1 ? ticks : linearTicks(low, high, 3).filter((t) => t > 0);
}

// A map from [low, high] to [from, to], with `ticks`. An empty or single-valued range is widened.
function makeScale(low, high, from, to, log = false, count = 4) {
  if (!(high > low)) {
    const room = log ? 0 : Math.abs(low) * 0.1 || 1;
    [low, high] = log ? [low / 2, low * 2] : [low - room, high + room];
  }
  const f = log ? Math.log : (v) => v;
  const back = log ? Math.exp : (v) => v;
  const scale = (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
  scale.invert = (p) => back(f(low) + ((p - from) / (to - from)) * (f(high) - f(low)));
  scale.ticks = log ? logTicks(low, high) : linearTicks(low, high, count);
  return scale;
}

// Calls draw(width) now and whenever the width of `element` changes.
function onResize(element, draw) {
  let last = 0;
  const check = () => {
    const width = Math.floor(element.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  };
  check();
  new ResizeObserver(() => requestAnimationFrame(check)).observe(element);
}

// Colours of a list in the style sheet, mixed at `share` in 0..1.
function heat(share) {
  const stops = getComputedStyle(document.documentElement).getPropertyValue("--heat").split(",").map((s) => s.trim());
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  const [a, b] = [stops[i], stops[i + 1]].map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));
  return `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * (place - i))).join(" ")})`;
}

const onThemeChange = (redraw) => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
