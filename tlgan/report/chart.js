// Curves over kimg: raw behind smoothed, log switch, values under the pointer or with the arrow keys.

const CHART_HEIGHT = 190;
const SMOOTH_FROM = 24; // points; shorter curves are drawn as they are, with their points

// A moving average with a half-life of 2 % of the run, free of the start's bias; gaps stay gaps.
function smoothed(kimg, values) {
  const span = kimg[kimg.length - 1] - kimg[0] || 1;
  let [sum, weight, before] = [0, 0, kimg[0]];
  return values.map((value, i) => {
    if (!Number.isFinite(value)) return value;
    const keep = 0.5 ** Math.max((kimg[i] - before) / (0.02 * span), 1e-3);
    before = kimg[i];
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}

class Chart {
  constructor(figure) {
    const run = REPORT.runs[Number(figure.dataset.run)];
    const all = run[figure.dataset.group];
    const curves = figure.dataset.index === undefined ? all : [all[Number(figure.dataset.index)]];
    this.curves = curves.map((curve, i) => this.read(curve, i));
    this.first = figure.dataset.group === "metrics" ? 2 : 0;
    this.log = false;
    this.smooth = true;
    this.plot = figure.querySelector(".plot");
    this.legend = html("div", { class: "legend", "aria-live": "off" });
    this.plot.before(this.legend);
    figure.querySelector("figcaption").append(this.tools());
    this.say(null);
    this.plot.tabIndex = 0;
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.show(null));
    this.plot.addEventListener("blur", () => this.show(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    onResize(this.plot, (width) => this.draw(width));
  }

  read(curve, i) {
    const kimg = curve.kimg.map(toNumber);
    const raw = curve.values.map(toNumber);
    return { name: curve.name, better: curve.better, kimg, raw, smooth: raw.length >= SMOOTH_FROM ? smoothed(kimg, raw) : raw, i };
  }

  tools() {
    const bar = html("span", { class: "tools" });
    const button = (text, key) => {
      const b = html("button", { type: "button", "aria-pressed": this[key] }, text);
      b.addEventListener("click", () => {
        this[key] = !this[key];
        b.setAttribute("aria-pressed", this[key]);
        this.draw(this.width);
      });
      bar.append(b);
    };
    if (this.curves.some((c) => c.raw !== c.smooth)) button("smooth", "smooth");
    if (this.curves.every((c) => c.raw.every((v) => !Number.isFinite(v) || v > 0))) button("log", "log");
    return bar;
  }

  colour(curve) {
    return `var(--s${(curve.i + this.first) % 6})`;
  }

  shown(curve) {
    return this.smooth ? curve.smooth : curve.raw;
  }

  // The range of the values drawn; single spikes of the raw values do not squeeze the curve.
  range() {
    const values = this.curves.flatMap((c) => this.shown(c)).filter(Number.isFinite);
    const raw = this.curves.flatMap((c) => c.raw).filter(Number.isFinite).sort((a, b) => a - b);
    const [low, high] = [Math.min(...values, raw[0]), Math.max(...values, raw[raw.length - 1])];
    const cut = Math.ceil(raw.length * 0.01);
    const [inner, outer] = [Math.min(...values, raw[cut]), Math.max(...values, raw[raw.length - 1 - cut])];
    return raw.length >= 100 && high - low > 2 * (outer - inner) ? [inner, outer] : [low, high];
  }

  draw(width) {
    this.width = width;
    const finite = this.curves.some((c) => c.raw.some(Number.isFinite));
    if (!finite) return this.plot.replaceChildren(html("p", { class: "empty" }, "No finite value to draw."));
    const kimg = this.curves.flatMap((c) => c.kimg).filter(Number.isFinite);
    const [low, high] = this.range();
    const room = this.log || !(high > low) ? 0 : (high - low) * 0.06;
    this.y = makeScale(low - room, high + room, CHART_HEIGHT - 22, 8, this.log, 5);
    const left = 10 + 6.2 * Math.max(...this.y.ticks.map((t) => words(t).length));
    const to = Math.max(...kimg);
    const first = Math.min(...kimg);
    const from = first === to || first < 0.1 * to ? 0 : first;
    this.x = makeScale(from, to > from ? to : from + 1, left, width - 8, false, Math.max(3, Math.floor(width / 70)));
    const box = svg("svg", { viewBox: `0 0 ${width} ${CHART_HEIGHT}`, width, height: CHART_HEIGHT });
    this.drawAxes(box, left, width);
    const clip = `clip${(Chart.count = (Chart.count || 0) + 1)}`;
    box.append(svg("clipPath", { id: clip }, svg("rect", { x: left - 6, y: 2, width: Math.max(1, width - left + 6), height: CHART_HEIGHT - 20 })));
    const lines = svg("g", { "clip-path": `url(#${clip})` });
    for (const curve of this.curves) this.drawCurve(lines, curve);
    this.cursor = svg("g");
    box.append(lines, this.cursor);
    this.plot.replaceChildren(box);
  }

  drawAxes(box, left, width) {
    for (const tick of this.y.ticks) {
      const y = this.y(tick);
      box.append(svg("line", { x1: left, x2: width - 8, y1: y, y2: y, class: "rule" }));
      box.append(svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, words(tick)));
    }
    const ticks = this.x.ticks;
    ticks.forEach((tick, i) => {
      const label = words(tick) + (i === ticks.length - 1 ? " kimg" : "");
      const x = this.x(tick);
      const anchor = x > width - 36 ? "end" : "middle";
      box.append(svg("text", { x: anchor === "end" ? width : x, y: CHART_HEIGHT - 4, "text-anchor": anchor }, label));
    });
    box.append(svg("line", { x1: left, x2: width - 8, y1: CHART_HEIGHT - 20, y2: CHART_HEIGHT - 20, class: "axis" }));
  }

  path(curve, values) {
    let [text, pen] = ["", "M"];
    values.forEach((value, i) => {
      if (!Number.isFinite(value)) return void (pen = "M");
      text += `${pen}${this.x(curve.kimg[i]).toFixed(1)} ${this.y(value).toFixed(1)}`;
      pen = "L";
    });
    return text;
  }

  drawCurve(lines, curve) {
    const stroke = this.colour(curve);
    const values = this.shown(curve);
    if (values !== curve.raw) lines.append(svg("path", { d: this.path(curve, curve.raw), class: "raw", stroke }));
    lines.append(svg("path", { d: this.path(curve, values), class: "smooth", stroke }));
    if (curve.raw.length < SMOOTH_FROM) {
      curve.raw.forEach((v, i) => {
        if (Number.isFinite(v)) lines.append(svg("circle", { cx: this.x(curve.kimg[i]), cy: this.y(v), r: 2.6, fill: stroke }));
      });
    }
    const best = this.best(curve);
    if (best >= 0) lines.append(svg("circle", { cx: this.x(curve.kimg[best]), cy: this.y(curve.raw[best]), r: 4.5, class: "best", stroke }));
  }

  best(curve) {
    if (!curve.better) return -1;
    const sign = curve.better === "min" ? 1 : -1;
    return curve.raw.reduce((b, v, i) => (Number.isFinite(v) && (b < 0 || sign * v < sign * curve.raw[b]) ? i : b), -1);
  }

  nearest(curve, kimg) {
    let best = 0;
    curve.kimg.forEach((k, i) => {
      if (Math.abs(k - kimg) < Math.abs(curve.kimg[best] - kimg)) best = i;
    });
    return best;
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    if (this.x) this.show(this.x.invert(((event.clientX - box.left) / box.width) * this.width));
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.x) return;
    event.preventDefault();
    const curve = this.curves[0];
    const from = this.at === null || this.at === undefined ? (step > 0 ? -1 : curve.kimg.length) : this.nearest(curve, this.at);
    this.legend.setAttribute("aria-live", "polite");
    this.show(curve.kimg[Math.min(Math.max(from + step, 0), curve.kimg.length - 1)]);
  }

  show(kimg) {
    this.at = kimg;
    if (!this.cursor) return;
    this.cursor.replaceChildren();
    if (kimg !== null) {
      const x = this.x(this.curves[0].kimg[this.nearest(this.curves[0], kimg)]);
      this.cursor.append(svg("line", { x1: x, x2: x, y1: 6, y2: CHART_HEIGHT - 20, class: "cross" }));
      for (const curve of this.curves) {
        const i = this.nearest(curve, kimg);
        const value = this.shown(curve)[i];
        if (Number.isFinite(value)) this.cursor.append(svg("circle", { cx: this.x(curve.kimg[i]), cy: this.y(value), r: 3.5, fill: this.colour(curve) }));
      }
    }
    this.say(kimg);
  }

  // Names and values: under the pointer, else the last and, for metrics, the best.
  say(kimg) {
    const entries = this.curves.map((curve) => {
      const i = kimg === null ? curve.raw.length - 1 : this.nearest(curve, kimg);
      const mark = html("i");
      mark.style.background = this.colour(curve);
      return html("span", {}, mark, curve.name, html("b", {}, i < 0 ? "–" : words(curve.raw[i])));
    });
    const best = this.curves.length === 1 ? this.best(this.curves[0]) : -1;
    let note = "";
    if (kimg !== null) note = `at ${words(this.curves[0].kimg[this.nearest(this.curves[0], kimg)])} kimg`;
    else if (best >= 0) note = `best ${words(this.curves[0].raw[best])} at ${words(this.curves[0].kimg[best])} kimg`;
    this.legend.replaceChildren(...entries, html("span", { class: "at" }, note));
  }
}
